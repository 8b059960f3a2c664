package schema

// auditBlock is what package audit reads.
func auditBlock() Block {
	return Block{Name: "audit", Summary: "The log of what operators and people did, which `postern audit` lists and verifies. It is always kept.", Arguments: []Argument{
		{Name: "retain", Kind: Span, Preset: "400d", Min: "1d", Max: "36500d", Zero: true, Summary: "How long entries are kept; 0 keeps all."},
	}}
}
