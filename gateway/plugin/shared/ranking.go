package shared

import "container/heap"

// ranking is a heap of namespaces, the largest first.
type ranking []*namespace

func (r ranking) Len() int           { return len(r) }
func (r ranking) Less(i, j int) bool { return r[i].size > r[j].size }

// Swap keeps each namespace's own note of its place.
func (r ranking) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].rank, r[j].rank = i, j
}

// Push is for container/heap.
func (r *ranking) Push(x any) {
	n := x.(*namespace)
	n.rank = len(*r)
	*r = append(*r, n)
}

// Pop is for container/heap.
func (r *ranking) Pop() any {
	last := len(*r) - 1
	n := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return n
}

func (r *ranking) add(n *namespace)  { heap.Push(r, n) }
func (r *ranking) fix(n *namespace)  { heap.Fix(r, n.rank) }
func (r *ranking) drop(n *namespace) { heap.Remove(r, n.rank) }
