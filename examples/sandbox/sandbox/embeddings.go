package sandbox

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"net/http"
)

// Dimensions of an embedding: what is made when the request names none, and the most.
const (
	dimensions    = 64
	maxDimensions = 4096
	maxInputs     = 2048
)

// embeddings answers POST /v1/embeddings.
func (a *answer) embeddings(body []byte) {
	var q struct {
		Model      string          `json:"model"`
		Input      json.RawMessage `json:"input"`
		Dimensions *int            `json:"dimensions"`
		Encoding   string          `json:"encoding_format"`
	}
	bad := func(message string) { a.refuse(http.StatusBadRequest, "invalid_request_error", "", message) }
	if err := json.Unmarshal(body, &q); err != nil {
		bad("The body is not valid: " + err.Error() + ".")
		return
	}
	size := dimensions
	if q.Dimensions != nil {
		size = *q.Dimensions
	}
	texts, tokens, ok := inputs(q.Input)
	switch {
	case q.Model == "":
		bad("You must provide a model parameter.")
		return
	case !ok || len(texts) == 0 || len(texts) > maxInputs:
		bad("input must be a string, an array of strings, an array of tokens or an array of such arrays.")
		return
	case size < 1 || size > maxDimensions:
		bad("dimensions must be from 1 to 4096.")
		return
	case q.Encoding != "" && q.Encoding != "float" && q.Encoding != "base64":
		bad("encoding_format must be float or base64.")
		return
	}
	if !a.fault(q.Model) {
		return
	}
	list := make([]any, 0, len(texts))
	for i, text := range texts {
		var embedding any = vector(text, size)
		if q.Encoding == "base64" {
			embedding = packed(vector(text, size))
		}
		list = append(list, map[string]any{"object": "embedding", "index": i, "embedding": embedding})
	}
	u := usage{Prompt: tokens, Total: tokens}
	whole := map[string]any{
		"object": "list", "data": list, "model": q.Model,
		"usage": map[string]any{"prompt_tokens": u.Prompt, "total_tokens": u.Total},
	}
	if a.faults.has("nousage") {
		delete(whole, "usage")
	}
	a.whole(q.Model, u, whole)
}

// inputs reads the four forms of input. Tokens given as numbers are one token each.
func inputs(raw json.RawMessage) (texts []string, tokens int64, ok bool) {
	var one string
	var numbers []uint32
	var lists [][]uint32
	switch {
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}, Tokens(one), true
	case json.Unmarshal(raw, &texts) == nil:
		for _, t := range texts {
			tokens += Tokens(t)
		}
		return texts, tokens, true
	case json.Unmarshal(raw, &numbers) == nil:
		lists = [][]uint32{numbers}
	case json.Unmarshal(raw, &lists) != nil:
		return nil, 0, false
	}
	texts = nil
	for _, list := range lists {
		var b []byte
		for _, n := range list {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		texts = append(texts, string(b))
		tokens += int64(len(list))
	}
	return texts, tokens, true
}

// vector is a unit vector that follows from text: the same text gives the same, other texts others.
func vector(text string, size int) []float32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // a hash takes everything
	seed := h.Sum64()
	v := make([]float32, size)
	sum := 0.0
	for i := range v {
		// splitmix64
		seed += 0x9e3779b97f4a7c15
		x := seed
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
		f := float64(x>>11)/(1<<52) - 1
		v[i] = float32(f)
		sum += f * f
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
	}
	return v
}

// packed is a vector as base64 of little-endian float32, which the official clients ask for.
func packed(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(b)
}
