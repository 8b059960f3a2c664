// Package carrier carries exchanges over streams of HTTP/2 and 3: it turns what their servers hand out into
// exchange.Exchange, Body and Reply. Its main type is Carrier.
package carrier

import "github.com/postern-gateway/postern/gateway/caller"

// Carrier makes exchanges of streams and has a Service answer them. It does not change once it is in use.
type Carrier struct{ caller.Service }
