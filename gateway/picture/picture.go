// Package picture takes out of images what is not the image: where and when and with what it was taken, by whom, small copies
// of it, comments, and whatever lies behind its end. Its main type is Kind.
//
// Nothing is decoded and coded again: the picture itself stays as it is, octet for octet. What a viewer needs to show it right
// stays too: the colour profile, the resolution, the turns that a camera noted (the EXIF orientation, in a block that
// says nothing else), the times of an animation.
package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Errors of Strip.
var (
	ErrUnknown = errors.New("not an image of a kind whose metadata can be taken out (JPEG, PNG, GIF, WebP)")
	ErrBroken  = errors.New("the image is not whole")
)

// Kind is a format of images.
type Kind string

// The kinds. Foreign is an image that Strip does not know how to clean.
const (
	None    Kind = "" // no image
	JPEG    Kind = "image/jpeg"
	PNG     Kind = "image/png"
	GIF     Kind = "image/gif"
	WebP    Kind = "image/webp"
	Foreign Kind = "image/*"
)

// SniffLength is how many octets Sniff looks at.
const SniffLength = 32

// Sniff tells by its first octets what something is, whatever it is called.
func Sniff(b []byte) Kind {
	has := func(at int, text string) bool { return len(b) >= at+len(text) && string(b[at:at+len(text)]) == text }
	switch {
	case has(0, "\xff\xd8\xff"):
		return JPEG
	case has(0, pngHead):
		return PNG
	case has(0, "GIF87a"), has(0, "GIF89a"):
		return GIF
	case has(0, "RIFF") && has(8, "WEBP"):
		return WebP
	case has(0, "II*\x00"), has(0, "MM\x00*"), has(0, "II+\x00"), has(0, "MM\x00+"), // TIFF and what cameras make of it
		has(0, "BM"), has(0, "\x00\x00\x01\x00"), has(0, "8BPS"), has(0, "\xff\x0a"), has(0, "\x00\x00\x00\x0cJXL "), has(0, "\x00\x00\x00\x0cjP  "),
		has(4, "ftyp") && (has(8, "hei") || has(8, "hev") || has(8, "mif1") || has(8, "msf1") || has(8, "avi") || has(8, "crx ")):
		return Foreign
	}
	return None
}

// Strip returns the image without metadata. b is not changed, and is returned as it is when there is none. ErrUnknown
// is for everything that is no image of a known kind, ErrBroken for what does not keep to its format: nothing can be
// promised of that.
func Strip(b []byte) ([]byte, error) {
	var out []byte
	var err error
	switch Sniff(b) {
	case JPEG:
		out, err = stripJPEG(b)
	case PNG:
		out, err = stripPNG(b)
	case GIF:
		out, err = stripGIF(b)
	case WebP:
		out, err = stripWebP(b)
	default:
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, err
	}
	if bytes.Equal(out, b) {
		return b, nil
	}
	return out, nil
}

func broken(what string) error { return fmt.Errorf("%w: %s", ErrBroken, what) }

// The markers of JPEG that matter here (ITU-T T.81, table B.1).
const (
	markerTEM  = 0x01
	markerRST0 = 0xd0
	markerRST7 = 0xd7
	markerSOI  = 0xd8
	markerEOI  = 0xd9
	markerSOS  = 0xda
	markerAPP0 = 0xe0
	markerAPPF = 0xef
	markerCOM  = 0xfe
)

// stripJPEG keeps what is needed to decode: tables, frames and scans, the marks of JFIF and Adobe that say how colours
// are coded, and the colour profile. All other application segments and comments go, and what follows the end: that is where
// phones put a second picture, a depth map or a film.
func stripJPEG(b []byte) ([]byte, error) {
	out := make([]byte, 0, len(b))
	out = append(out, b[:2]...)
	turned := false
	for i := 2; ; {
		start := i
		if i >= len(b) || b[i] != 0xff {
			return nil, broken("no marker where one must be")
		}
		for i < len(b) && b[i] == 0xff { // any number may fill up
			i++
		}
		if i >= len(b) {
			return nil, broken("it ends in a marker")
		}
		marker := b[i]
		i++
		switch {
		case marker == markerEOI:
			return append(out, 0xff, markerEOI), nil
		case marker == markerTEM, marker >= markerRST0 && marker <= markerRST7:
			out = append(out, 0xff, marker)
			continue
		case marker == markerSOI, marker == 0:
			return nil, broken("a marker where it must not be")
		}
		if len(b)-i < 2 {
			return nil, broken("it ends in a segment")
		}
		size := int(binary.BigEndian.Uint16(b[i:]))
		if size < 2 || len(b)-i < size {
			return nil, broken("a segment is longer than what is left")
		}
		content := b[i+2 : i+size]
		i += size
		switch {
		case marker == markerAPP0+1 && !turned && bytes.HasPrefix(content, []byte("Exif\x00\x00")):
			if o := orientation(content[6:]); o > 1 {
				turned = true
				out = append(out, turn(o)...)
			}
		case marker == markerAPP0 && bytes.HasPrefix(content, []byte("JFIF\x00")) && len(content) >= 14:
			// Without the small copy that may be in it.
			out = append(out, 0xff, markerAPP0, 0, 16)
			out = append(append(out, content[:12]...), 0, 0)
		case marker == markerAPP0+14 && bytes.HasPrefix(content, []byte("Adobe")) && len(content) >= 12:
			out = append(out, 0xff, marker, 0, 14)
			out = append(out, content[:12]...)
		case marker == markerAPP0+2 && bytes.HasPrefix(content, []byte("ICC_PROFILE\x00")):
			out = append(out, b[start:i]...)
		case marker >= markerAPP0 && marker <= markerAPPF, marker == markerCOM:
		default:
			out = append(out, b[start:i]...)
		}
		if marker != markerSOS {
			continue
		}
		// The scan's data, up to a marker that is neither a stuffed zero nor a restart.
		begun := i
		for {
			at := bytes.IndexByte(b[i:], 0xff)
			if at < 0 || i+at+1 >= len(b) {
				return nil, broken("a scan has no end")
			}
			i += at
			if next := b[i+1]; next == 0 || next >= markerRST0 && next <= markerRST7 {
				i += 2
				continue
			} else if next == 0xff {
				i++
				continue
			}
			break
		}
		out = append(out, b[begun:i]...)
	}
}

// orientation reads tag 0x0112 of the first directory of a TIFF structure (EXIF 2.32, section 4.6.4); 0 when there is none.
func orientation(tiff []byte) uint16 {
	if len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.BigEndian
	if tiff[0] == 'I' {
		order = binary.LittleEndian
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 0
	}
	n := uint64(order.Uint16(tiff[at:]))
	for k := range n {
		e := at + 2 + 12*k
		if e+12 > uint64(len(tiff)) {
			return 0
		}
		if order.Uint16(tiff[e:]) == 0x0112 && order.Uint16(tiff[e+2:]) == 3 && order.Uint32(tiff[e+4:]) == 1 {
			if o := order.Uint16(tiff[e+8:]); o <= 8 {
				return o
			}
			return 0
		}
	}
	return 0
}

// turn is a segment that says how a picture is to be turned, and nothing else.
func turn(orientation uint16) []byte {
	return append([]byte{
		0xff, markerAPP0 + 1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,
		'M', 'M', 0, 42, 0, 0, 0, 8, // one directory, which follows
		0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1,
	}, byte(orientation>>8), byte(orientation), 0, 0, 0, 0, 0, 0)
}

const pngHead = "\x89PNG\r\n\x1a\n"

// pngKept are the chunks that a picture or an animation is shown by (PNG third edition, section 11). Others that are
// critical are kept too, those that are not go: text, times, EXIF, and what programs invented.
var pngKept = [...]string{
	"tRNS", "cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "cICP", "mDCV", "cLLI", "bKGD", "hIST", "pHYs", "sPLT", "acTL", "fcTL", "fdAT",
}

func stripPNG(b []byte) ([]byte, error) {
	out := make([]byte, 0, len(b))
	out = append(out, pngHead...)
	for i := len(pngHead); ; {
		if len(b)-i < 12 {
			return nil, broken("it ends before its last chunk")
		}
		size := uint64(binary.BigEndian.Uint32(b[i:]))
		if size > 1<<31-1 || uint64(len(b)-i) < size+12 {
			return nil, broken("a chunk is longer than what is left")
		}
		kind, end := string(b[i+4:i+8]), i+12+int(size)
		keep := kind[0]&0x20 == 0 // critical
		for _, k := range pngKept {
			keep = keep || k == kind
		}
		switch {
		case kind == "iCCP":
			out = append(out, profile(b[i+8:end-4], b[i:end])...)
		case keep:
			out = append(out, b[i:end]...)
		}
		if i = end; kind == "IEND" {
			return out, nil
		}
	}
}

// profile is a chunk with a colour profile under a name that says nothing: programs put theirs there.
func profile(content, whole []byte) []byte {
	at := bytes.IndexByte(content, 0)
	if at < 0 {
		return nil
	}
	const name = "icc"
	if string(content[:at]) == name {
		return whole
	}
	content = append([]byte(name), content[at:]...)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	chunk = append(append(chunk, "iCCP"...), content...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// stripGIF keeps pictures, their controls and the number of rounds of an animation (GIF89a, section 17 and following).
func stripGIF(b []byte) ([]byte, error) {
	if len(b) < 13 {
		return nil, broken("it ends in its head")
	}
	i := 13 + colours(b[10])
	if i > len(b) {
		return nil, broken("it ends in its colours")
	}
	out := append(make([]byte, 0, len(b)), b[:i]...)
	// blocks is where the data blocks that begin at i end.
	blocks := func(i int) (int, error) {
		for i < len(b) {
			size := int(b[i])
			if i += 1 + size; size == 0 {
				return i, nil
			}
		}
		return 0, broken("it ends in its data")
	}
	for i < len(b) {
		start := i
		var err error
		keep := true
		switch b[i] {
		case 0x3b:
			return append(out, 0x3b), nil
		case 0x2c:
			if len(b)-i < 11 {
				return nil, broken("it ends in a picture's head")
			}
			i, err = blocks(i + 11 + colours(b[i+9]))
		case 0x21:
			if len(b)-i < 3 {
				return nil, broken("it ends in an extension")
			}
			keep = b[i+1] == 0xf9 || b[i+1] == 0xff && (bytes.HasPrefix(b[i+2:], []byte("\x0bNETSCAPE2.0\x03\x01")) || bytes.HasPrefix(b[i+2:], []byte("\x0bANIMEXTS1.0\x03\x01")))
			i, err = blocks(i + 2)
			if err == nil && keep && b[start+1] == 0xff {
				if i-start != 19 { // more than the number of rounds
					keep = false
				}
			}
		default:
			return nil, broken("a block of no known kind")
		}
		if err != nil {
			return nil, err
		}
		if keep {
			out = append(out, b[start:i]...)
		}
	}
	return nil, broken("it has no end")
}

// colours is the size of the table that the flags of a head announce.
func colours(flags byte) int {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// webpKept are the chunks that a picture or an animation is shown by (RFC 9649 section 2).
var webpKept = [...]string{"VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP"}

// The flags of VP8X that announce metadata.
const webpMetadata = 0x08 | 0x04

func stripWebP(b []byte) ([]byte, error) {
	size := uint64(binary.LittleEndian.Uint32(b[4:]))
	if size < 4 || size+8 > uint64(len(b)) {
		return nil, broken("it is shorter than it says")
	}
	end := int(size) + 8
	out := append(make([]byte, 0, end), b[:12]...)
	for i := 12; i < end; {
		if end-i < 8 {
			return nil, broken("it ends in a chunk's head")
		}
		n := uint64(binary.LittleEndian.Uint32(b[i+4:]))
		n += 8 + n&1
		if n > uint64(end-i) {
			return nil, broken("a chunk is longer than what is left")
		}
		chunk := b[i : i+int(n)]
		i += int(n)
		for _, kind := range webpKept {
			if string(chunk[:4]) != kind {
				continue
			}
			at := len(out)
			out = append(out, chunk...)
			if kind == "VP8X" && len(chunk) > 8 {
				out[at+8] &^= webpMetadata
			}
		}
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out, nil
}
