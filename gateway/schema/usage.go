package schema

// usageBlock is what package usage keeps.
func usageBlock() Block {
	return Block{Name: "usage", Summary: "The record that every call of an account leaves: who, when, by which route and key, which model, units, amount, receipt, status and times; never content, an address or a header.", Arguments: []Argument{
		{Name: "keep", Kind: Span, Preset: "90d", Min: "1d", Max: "3650d", Summary: "How long records are kept, and the sums of hours that are made of them."},
		{Name: "sums", Kind: Span, Preset: "400d", Min: "1d", Max: "3650d", Summary: "How long the sums of days are kept; at least as long as records."},
	}}
}
