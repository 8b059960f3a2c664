package schema

// vaultBlock is what package vault reads.
func vaultBlock() Block {
	return Block{Name: "vault", Summary: "The keys of what is kept sealed for people and accounts, one for each, which erasure destroys. They are in `vault` in the state's `dir`, under a master key.", Arguments: []Argument{
		{Name: "key", Kind: Text, Secret: true, Summary: "The master key: 32 octets in hexadecimal or base64, as `openssl rand -hex 32` makes them, from a secret. Without it one is made and kept beside the keys, readable by its own user only."},
		{Name: "previous", Kind: Text, Secret: true, Summary: "The master key before this one: at the next start all keys are wrapped under the new one, and this can go."},
	}}
}
