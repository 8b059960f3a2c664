package vault

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/gateway/secret"
)

// Findings takes what is wrong with a block.
type Findings interface {
	Errorf(at hcl.Range, summary, detail string, arguments ...any)
	Warnf(at hcl.Range, summary, detail string, arguments ...any)
}

// Read reads the vault block.
func Read(s *schema.Section, f Findings) Config {
	var c Config
	key := func(name string) []byte {
		text, isSecret := s.SecretText(name)
		if text == "" {
			c.Withheld = c.Withheld || s.Set(name)
			return nil
		}
		if !isSecret {
			f.Warnf(s.Where(name), "Master key in the open", "The master key stands in the file. Read it from a secret block instead.")
		}
		b, err := secret.ParseKey(text, KeySize)
		if err != nil {
			f.Errorf(s.Where(name), "Invalid key", "%s can not be used: %s. \"openssl rand -hex %d\" makes one.", name, err, KeySize)
		}
		return b
	}
	c.Master, c.Previous = key("key"), key("previous")
	return c
}
