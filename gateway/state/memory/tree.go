package memory

import (
	"bytes"
	"time"
)

// node is an entry and the root of a treap: a search tree by key and a heap by a random priority, so that it stays
// shallow whatever order keys come in. Nodes never change once a tree is visible to readers; every change copies the
// path from the root. A nil node is the empty tree.
type node struct {
	key, value  []byte
	expires     time.Time // zero: never
	priority    uint64
	left, right *node
}

// over reports whether the entry's time is over.
func (n *node) over(now time.Time) bool { return !n.expires.IsZero() && !n.expires.After(now) }

// find returns the node of key, or nil.
func (n *node) find(key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// put returns the tree with entry in it, in place of one with the same key.
func (n *node) put(entry *node) *node {
	if n == nil {
		return entry
	}
	fresh := *n
	switch c := bytes.Compare(entry.key, n.key); {
	case c < 0:
		fresh.left = n.left.put(entry)
		if up := fresh.left; up.priority > fresh.priority { // up is a copy made just now, so it may be changed
			fresh.left, up.right = up.right, &fresh
			return up
		}
	case c > 0:
		fresh.right = n.right.put(entry)
		if up := fresh.right; up.priority > fresh.priority {
			fresh.right, up.left = up.left, &fresh
			return up
		}
	default:
		entry.priority, entry.left, entry.right = n.priority, n.left, n.right
		return entry
	}
	return &fresh
}

// remove returns the tree without key.
func (n *node) remove(key []byte) *node {
	if n == nil {
		return nil
	}
	fresh := *n
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		fresh.left = n.left.remove(key)
	case c > 0:
		fresh.right = n.right.remove(key)
	default:
		return merge(n.left, n.right)
	}
	return &fresh
}

// merge joins two trees of which every key of a is below every key of b.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		fresh := *a
		fresh.right = merge(a.right, b)
		return &fresh
	}
	fresh := *b
	fresh.left = merge(a, b.left)
	return &fresh
}

// ascend calls visit for every node from the first not below start, in order, until it returns false.
func (n *node) ascend(start []byte, visit func(*node) bool) bool {
	if n == nil {
		return true
	}
	if bytes.Compare(n.key, start) >= 0 {
		return n.left.ascend(start, visit) && visit(n) && n.right.ascend(start, visit)
	}
	return n.right.ascend(start, visit)
}
