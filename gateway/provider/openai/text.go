package openai

import "encoding/json"

// Text reads the deltas of a chunk: their content, or the refusal in its place. What is no chunk adds nothing.
func (f *Format) Text(event []byte, add func(choice int, text []byte)) {
	var chunk struct {
		Choices []struct {
			Index int
			Delta struct{ Content, Refusal string }
		}
	}
	if e := readEvent(event, nil); json.Unmarshal(e.data, &chunk) != nil {
		return
	}
	for _, c := range chunk.Choices {
		if text := c.Delta.Content + c.Delta.Refusal; text != "" && c.Index >= 0 && c.Index < maxChoices {
			add(c.Index, []byte(text))
		}
	}
}
