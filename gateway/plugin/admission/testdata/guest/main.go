// Command guest is a module made of much of the Go runtime: maps, sorting, formatting, JSON, closures, panics that are
// recovered, and the garbage collector.
package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"regexp"
	"sort"
	"strings"
)

func main() {}

//go:wasmexport work
func work(n int32) int64 {
	words := make(map[string][]int)
	for i := range int(n) + 50 {
		word := fmt.Sprintf("w%d", i*7919%(13+int(n)))
		words[word] = append(words[word], i)
	}
	var lines []string
	for word, at := range words {
		b, err := json.Marshal(map[string]any{"word": word, "at": at, "half": float64(len(at)) / 2})
		if err != nil {
			panic(err)
		}
		lines = append(lines, string(b))
	}
	sort.Strings(lines)
	all := strings.Join(lines, "\n")
	found := regexp.MustCompile(`"w(\d)+"`).FindAllString(all, -1)
	return int64(crc32.ChecksumIEEE([]byte(all)))<<16 | int64(recovered(found, int(n)))
}

func recovered(list []string, i int) (n int) {
	defer func() {
		if recover() != nil {
			n = -1 & 0xff
		}
	}()
	return len(list[i])
}

//go:wasmexport fail
func fail(n int32) int32 {
	var list []int32
	return list[n]
}

//go:wasmexport endless
func endless() {
	for n := 0; ; n++ {
		sink(n)
	}
}

//go:noinline
func sink(int) {}
