package exchange

// Names keeps names of fields that were found fit to be used, so that those that come with every exchange are looked at
// and copied once. It keeps a few, of at most 256 octets each; others take their places. The zero value is ready; one
// goroutine uses it at a time.
type Names struct{ kept [16]string }

// Known returns a name that was kept, as a string; ok is false for others.
func (n *Names) Known(b []byte) (name string, ok bool) {
	if len(b) == 0 {
		return "", false
	}
	name = n.kept[place(b)]
	return name, name == string(b)
}

// Keep keeps a name, which FieldName has let through.
func (n *Names) Keep(b []byte) { n.kept[place(b)] = string(b) }

// place is where a name is kept: names that are used beside each other mostly differ in one of these.
func place(b []byte) int { return (len(b) + 3*int(b[len(b)/2]) + 5*int(b[len(b)-1])) % 16 }
