package ledger

import "github.com/postern-gateway/postern/gateway/ledger/record"

// What callers need of package record goes by the same names here.
type (
	Attempt = record.Attempt
	Entry   = record.Entry
	Kind    = record.Kind
	Flags   = record.Flags
	Totals  = record.Totals
	Report  = record.Report
)

// The kinds of entries, see record.Kind.
const (
	Credit     = record.Credit
	Charge     = record.Charge
	Refund     = record.Refund
	Adjustment = record.Adjustment
)

// The flags of a charge, see record.Flags.
const (
	Estimated = record.Estimated
	Capped    = record.Capped
	Recovered = record.Recovered
	Expired   = record.Expired
)

// The accounts on the other side of every movement.
const (
	Payments    = record.Payments
	Revenue     = record.Revenue
	Adjustments = record.Adjustments
)

// Bounds of what a ledger is given.
const (
	MaxName = record.MaxName
	MaxNote = record.MaxNote
	MaxTags = record.MaxTags
	MaxTag  = record.MaxTag
)
