package audit

import "github.com/postern-gateway/postern/gateway/schema"

// Read reads the audit block; the rest of the Config is filled in by whoever opens the log.
func Read(s *schema.Section) Config { return Config{Retain: s.Span("retain")} }
