package openai

import "bytes"

// sse is one server-sent event, as the WHATWG HTML standard (section 9.2.6) frames it.
type sse struct {
	data   []byte // the values of its data lines, joined by line feeds
	at     span   // the value of the first data line
	lines  int    // how many data lines there are
	failed bool   // its type is "error"
}

// readEvent reads an event. With more than one data line the data is appended to room, else it is part of event.
func readEvent(event, room []byte) sse {
	var e sse
	for at := 0; at < len(event); {
		line, next := readLine(event, at)
		field, value := readField(event, line)
		switch string(field) {
		case "data":
			e.lines++
			switch e.lines {
			case 1:
				e.at, e.data = value, value.of(event)
			case 2:
				e.data = append(append(append(room, e.data...), '\n'), value.of(event)...)
			default:
				e.data = append(append(e.data, '\n'), value.of(event)...)
			}
		case "event":
			e.failed = string(value.of(event)) == "error"
		}
		at = next
	}
	return e
}

// rewrite appends the event with other data: in the place of the first data line, in the lines' own style, and without
// the other data lines.
func (e *sse) rewrite(dst, event, data []byte) []byte {
	done := false
	for at := 0; at < len(event); {
		line, next := readLine(event, at)
		field, value := readField(event, line)
		switch {
		case string(field) != "data":
			dst = append(dst, event[at:next]...)
		case !done:
			done = true
			for part := range bytes.SplitSeq(data, []byte("\n")) {
				dst = append(dst, event[at:value.from]...)
				dst = append(dst, part...)
				dst = append(dst, event[value.to:next]...)
			}
		}
		at = next
	}
	return dst
}

// readLine finds the line at offset at, without its end, and the offset of the next. A line ends with CR LF, LF or CR.
func readLine(b []byte, at int) (line span, next int) {
	i := bytes.IndexAny(b[at:], "\r\n")
	if i < 0 {
		return span{at, len(b)}, len(b)
	}
	line = span{at, at + i}
	next = line.to + 1
	if b[line.to] == '\r' && next < len(b) && b[next] == '\n' {
		next++
	}
	return line, next
}

// readField splits a line into its field and the value, which one blank may go before.
func readField(b []byte, line span) (field []byte, value span) {
	text := line.of(b)
	if line.from == 0 {
		text = bytes.TrimPrefix(text, []byte("\ufeff")) // the byte order mark a stream may begin with
	}
	colon := bytes.IndexByte(text, ':')
	if colon < 0 {
		return text, span{line.to, line.to}
	}
	value = span{line.to - len(text) + colon + 1, line.to}
	if value.from < value.to && b[value.from] == ' ' {
		value.from++
	}
	return text[:colon], value
}
