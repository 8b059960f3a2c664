package picture

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

const canary = "52.5163N 13.3777E Ann Example"

// painted is a picture that is not of one colour.
func painted() *image.Paletted {
	p := image.NewPaletted(image.Rect(0, 0, 40, 30), color.Palette{color.Black, color.White, color.RGBA{200, 10, 10, 255}})
	for i := range p.Pix {
		p.Pix[i] = byte(i * 7 / 5 % 3)
	}
	return p
}

func plainJPEG(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, painted(), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plainPNG(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, painted()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plainGIF(t testing.TB, rounds int) []byte {
	t.Helper()
	var b bytes.Buffer
	g := &gif.GIF{Image: []*image.Paletted{painted(), painted()}, Delay: []int{10, 20}, LoopCount: rounds}
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func segment(marker byte, content string) string {
	return string([]byte{0xff, marker, byte((len(content) + 2) >> 8), byte(len(content) + 2)}) + content
}

func chunk(kind, content string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	b = append(append(b, kind...), content...)
	return string(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:])))
}

func riff(kind, content string) string {
	b := binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(content)))
	b = append(b, content...)
	if len(content)%2 == 1 {
		b = append(b, 0)
	}
	return string(b)
}

func webp(chunks ...string) string {
	all := "WEBP" + strings.Join(chunks, "")
	return "RIFF" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(all)))) + all
}

// exif is an EXIF structure of either order with an orientation and the canary.
func exif(order binary.AppendByteOrder, orientation uint16) string {
	b := []byte("MM\x00*")
	if order.String() == "LittleEndian" {
		b = []byte("II*\x00")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(order.AppendUint16(b, 0x010f), 2) // the maker
	b = order.AppendUint32(order.AppendUint32(b, uint32(len(canary))), 38)
	b = order.AppendUint16(order.AppendUint16(b, 0x0112), 3)
	b = order.AppendUint16(order.AppendUint16(order.AppendUint32(b, 1), orientation), 0)
	b = order.AppendUint32(b, 0)
	return string(b) + canary
}

// behind puts something behind the first n octets.
func behind(b []byte, n int, more ...string) []byte {
	return []byte(string(b[:n]) + strings.Join(more, "") + string(b[n:]))
}

// images are some of every kind, with metadata in every place that a kind has for it.
func images(t testing.TB) map[string][]byte {
	t.Helper()
	j, p, g := plainJPEG(t), plainPNG(t), plainGIF(t, 3)
	icc := segment(0xe2, "ICC_PROFILE\x00\x01\x01profile")
	return map[string][]byte{
		"jpeg plain":               j,
		"jpeg exif":                behind(j, 2, segment(0xe1, "Exif\x00\x00"+exif(binary.BigEndian, 1))),
		"jpeg turned":              behind(j, 2, segment(0xe1, "Exif\x00\x00"+exif(binary.BigEndian, 6))),
		"jpeg turned little":       behind(j, 2, segment(0xe1, "Exif\x00\x00"+exif(binary.LittleEndian, 6)), icc),
		"jpeg xmp":                 behind(j, 2, segment(0xe1, "http://ns.adobe.com/xap/1.0/\x00"+canary), segment(0xed, "Photoshop 3.0\x00"+canary), segment(0xfe, canary)),
		"jpeg small copy":          behind(j, 2, segment(0xe0, "JFIF\x00\x01\x02\x01\x00\x48\x00\x48\x01\x01"+canary)),
		"jpeg adobe and more":      behind(j, 2, segment(0xee, "Adobe\x00\x64\x00\x00\x00\x00\x01"+canary)),
		"jpeg second picture":      append(bytes.Clone(j), behind(j, 2, segment(0xfe, canary))...),
		"jpeg film":                append(bytes.Clone(j), canary...),
		"jpeg before the scan":     behind(j, bytes.Index(j, []byte{0xff, 0xda}), "\xff\xff", segment(0xe9, canary)),
		"jpeg between, filled up":  behind(j, 2, "\xff\xff\xff", segment(0xe1, canary)),
		"png plain":                p,
		"png text":                 behind(p, 33, chunk("tEXt", "Author\x00"+canary), chunk("iTXt", canary), chunk("zTXt", canary), chunk("eXIf", exif(binary.BigEndian, 1)), chunk("tIME", canary[:7])),
		"png private":              behind(p, 33, chunk("prVt", canary)),
		"png profile's name":       behind(p, 33, chunk("iCCP", canary+"\x00\x00profile")),
		"png profile's short name": behind(p, 33, chunk("iCCP", "Ann\x00\x00profile")),
		"png behind":               append(bytes.Clone(p), canary...),
		"gif plain":                g,
		"gif comment":              behind(g, len(g)-1, "\x21\xfe"+string(byte(len(canary)))+canary+"\x00"),
		"gif xmp":                  behind(g, len(g)-1, "\x21\xff\x0bXMP DataXMP"+string(byte(len(canary)))+canary+"\x00"),
		"gif rounds and more":      behind(g, len(g)-1, "\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00"+string(byte(len(canary)))+canary+"\x00"),
		"gif behind":               append(bytes.Clone(g), canary...),
		"webp plain":               []byte(webp(riff("VP8L", "pixels"))),
		"webp extended": []byte(webp(riff("VP8X", "\x2c\x00\x00\x00\x27\x00\x00\x1d\x00\x00"), riff("ICCP", "profile"), riff("VP8L", "pixels"),
			riff("EXIF", exif(binary.LittleEndian, 1)), riff("XMP ", canary), riff("own ", canary))),
		"webp behind": []byte(webp(riff("VP8L", "pixel")) + canary),
	}
}

// TestStrip finds nothing of the metadata afterwards, and the same picture.
func TestStrip(t *testing.T) {
	t.Parallel()
	for name, b := range images(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := bytes.Clone(b)
			out, err := Strip(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, given) {
				t.Error("what was given has changed")
			}
			for _, text := range []string{canary, canary[:7], "Ann", "XMP", "prVt", "own "} {
				if bytes.Contains(out, []byte(text)) {
					t.Errorf("%q is still there", text)
				}
			}
			if again, err := Strip(out); err != nil || !bytes.Equal(again, out) {
				t.Errorf("not the same when it is done again: %v", err)
			}
			if strings.HasSuffix(name, "plain") && !bytes.Equal(out, b) {
				t.Error("there was nothing to take out")
			}
			if got, want := bytes.Contains(out, []byte("profile")), bytes.Contains(b, []byte("profile")) && !strings.Contains(name, "private"); got != want {
				t.Errorf("the colour profile: %v", got)
			}
			if strings.HasPrefix(name, "webp") {
				if !bytes.Contains(out, []byte("pixel")) || int(binary.LittleEndian.Uint32(out[4:]))+8 != len(out) {
					t.Errorf("%q", out)
				}
				if at := bytes.Index(out, []byte("VP8X")); at > 0 && out[at+8] != 0x20 {
					t.Errorf("flags %x", out[at+8])
				}
				return
			}
			same(t, b, out)
			if strings.Contains(name, "turned") {
				at := bytes.Index(out, []byte("Exif\x00\x00"))
				if at < 0 || orientation(out[at+6:]) != 6 {
					t.Error("it would lie on its side")
				}
			} else if bytes.Contains(out, []byte("Exif")) {
				t.Error("an EXIF block that says nothing")
			}
			if strings.HasPrefix(name, "gif") {
				g, err := gif.DecodeAll(bytes.NewReader(out))
				if err != nil || g.LoopCount != 3 || len(g.Image) != 2 || g.Delay[1] != 20 {
					t.Errorf("the animation is another: %+v, %v", g, err)
				}
			}
		})
	}
}

// same checks that two images show the same.
func same(t *testing.T, a, b []byte) {
	t.Helper()
	first, _, err := image.Decode(bytes.NewReader(a))
	if err != nil {
		t.Fatalf("the test's own: %v", err)
	}
	second, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if first.Bounds() != second.Bounds() {
		t.Fatal("another size")
	}
	for y := range first.Bounds().Dy() {
		for x := range first.Bounds().Dx() {
			if first.At(x, y) != second.At(x, y) {
				t.Fatalf("another colour at %d, %d", x, y)
			}
		}
	}
}

// TestCut refuses every image that is cut short, since nobody knows what a reader would make of it.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, b := range images(t) {
		if strings.Contains(name, "behind") || strings.Contains(name, "second") || strings.Contains(name, "film") {
			continue
		}
		for n := range len(b) {
			if out, err := Strip(b[:n]); !errors.Is(err, ErrBroken) && !errors.Is(err, ErrUnknown) {
				t.Fatalf("%s, cut to %d of %d: %d octets, %v", name, n, len(b), len(out), err)
			}
		}
	}
}

// TestForeign refuses what it can not clean.
func TestForeign(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"II*\x00", "MM\x00*", "BM", "\x00\x00\x00\x18ftypheic", "\x00\x00\x00\x18ftypavif", "8BPS", "\xff\x0a", "<svg"} {
		if _, err := Strip([]byte(head + canary)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", head, err)
		}
	}
}

// TestClean is the table of what stands in a body.
func TestClean(t *testing.T) {
	t.Parallel()
	dirty := base64.StdEncoding.EncodeToString(behind(plainJPEG(t), 2, segment(0xfe, canary)))
	clean := base64.StdEncoding.EncodeToString(plainJPEG(t))
	urlSafe := base64.RawURLEncoding.EncodeToString(behind(plainJPEG(t), 2, segment(0xfe, canary)))
	heic := base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x18ftypheic" + canary + canary))
	for name, c := range map[string]struct {
		body, want string // want empty: as it was
		err        error
	}{
		"a url":               {`{"messages":[{"content":[{"image_url":{"url":"data:image/jpeg;base64,` + dirty + `","detail":"low"}}]}]}`, `{"messages":[{"content":[{"image_url":{"url":"data:image/jpeg;base64,` + clean + `","detail":"low"}}]}]}`, nil},
		"two":                 {`["data:image/jpeg;base64,` + dirty + `", "x", "` + dirty + `"]`, `["data:image/jpeg;base64,` + clean + `", "x", "` + clean + `"]`, nil},
		"plain base64":        {`{"source":{"type":"base64","data":"` + dirty + `"}}`, `{"source":{"type":"base64","data":"` + clean + `"}}`, nil},
		"another type":        {`["data:application/octet-stream;base64,` + dirty + `"]`, `["data:application/octet-stream;base64,` + clean + `"]`, nil},
		"no type":             {`["DATA:;base64,` + dirty + `"]`, `["DATA:;base64,` + clean + `"]`, nil},
		"escaped":             {`["data:image\/jpeg;base64,` + strings.ReplaceAll(dirty, "/", `\/`) + `"]`, `["data:image/jpeg;base64,` + clean + `"]`, nil},
		"escaped otherwise":   {`["\u0064ata:image/jpeg;base64,` + dirty + `"]`, `["data:image/jpeg;base64,` + clean + `"]`, nil},
		"url alphabet":        {`["data:image/jpeg;base64,` + urlSafe + `"]`, `["data:image/jpeg;base64,` + clean + `"]`, nil},
		"lines":               {`["data:image/jpeg;base64,` + dirty[:76] + `\r\n` + dirty[76:] + `"]`, `["data:image/jpeg;base64,` + clean + `"]`, nil},
		"clean":               {`["data:image/jpeg;base64,` + clean + `"]`, "", nil},
		"a document":          {`["data:application/pdf;base64,` + base64.StdEncoding.EncodeToString([]byte("%PDF-1.7 "+canary)) + `"]`, "", nil},
		"text":                {`["data: what is it? Nobody knows, it is what it is", "/9j/ is how it begins, they say, and so does iVBORw0KGgo"]`, "", nil},
		"a quote":             {`["he said \"data:image/jpeg;base64,AAAA\" and left, and that was all there was to it"]`, "", nil},
		"a link":              {`["https://example.org/data:image/jpeg;base64,AAAA/a-long-way-behind-it.jpg"]`, "", nil},
		"no JSON":             {`["data:image/jpeg;base64,` + dirty, "", nil},
		"foreign":             {`["data:image/heic;base64,` + heic + `"]`, "", ErrUnknown},
		"foreign, no type":    {`["data:;base64,` + heic + `"]`, "", ErrUnknown},
		"a drawing":           {`["data:image/svg+xml;base64,` + base64.StdEncoding.EncodeToString([]byte("<svg><!-- "+canary+" --></svg>")) + `"]`, "", ErrUnknown},
		"not in base64":       {`["data:image/svg+xml,%3Csvg%3E%3C!-- Ann --%3E%3C/svg%3E"]`, "", ErrUnknown},
		"no base64":           {`["data:image/jpeg;base64,` + dirty[:40] + `%%%%` + dirty[40:] + `"]`, "", ErrBroken},
		"no base64, no type":  {`["data:;base64,` + dirty[:40] + `%%%%` + dirty[40:] + `"]`, "", ErrBroken},
		"cut short":           {`["data:image/jpeg;base64,` + dirty[:400] + `"]`, "", ErrBroken},
		"claims to be one":    {`["data:image/png;base64,` + base64.StdEncoding.EncodeToString([]byte(canary+canary)) + `"]`, "", ErrUnknown},
		"empty strings":       {`["", "\\", "\"", {"":""}]`, "", nil},
		"an image, long text": {`["` + strings.Repeat("x", 1000) + `","data:image/jpeg;base64,` + dirty + `"]`, `["` + strings.Repeat("x", 1000) + `","data:image/jpeg;base64,` + clean + `"]`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := Clean([]byte(c.body))
			if c.err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("%q, %v", out, err)
				}
				return
			}
			if c.want == "" {
				c.want = c.body
			}
			if err != nil || string(out) != c.want {
				t.Errorf("got %.300q, %v", out, err)
			}
		})
	}
}

// TestCleanAllocatesNothing: a body without images costs a look at it.
func TestCleanAllocatesNothing(t *testing.T) { //nolint:paralleltest // it counts what the process allocates
	body := []byte(`{"model":"small","messages":[{"role":"user","content":"` + strings.Repeat(`What does the lock keeper do at night? \"Nothing.\" `, 100) + `"}]}`)
	if n := testing.AllocsPerRun(100, func() {
		if cleaned, err := Clean(body); err != nil || len(cleaned) != len(body) {
			t.Error("it has changed")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzStrip: what is taken for clean stays as it is when it is cleaned again, and no longer than it was, but for the
// orientation's block.
func FuzzStrip(f *testing.F) {
	for _, b := range images(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := Strip(b)
		if err != nil {
			return
		}
		if len(out) > len(b)+36 {
			t.Fatalf("%d octets of %d", len(out), len(b))
		}
		if again, err := Strip(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("again: %v", err)
		}
	})
}

// FuzzClean: JSON stays JSON, and clean is clean.
func FuzzClean(f *testing.F) {
	f.Add([]byte(`{"a":"data:image/jpeg;base64,` + base64.StdEncoding.EncodeToString(plainJPEG(f)) + `"}`))
	f.Add([]byte(`["data:image/gif;base64,R0lGODdhAAAAAAAAADs="]`))
	f.Add([]byte(`["\u0064ata:image\/png;base64,AA==","\\\"",""]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := Clean(body)
		if err != nil {
			return
		}
		if json.Valid(body) && !json.Valid(out) {
			t.Fatalf("%q became %q", body, out)
		}
		if again, err := Clean(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, then %q, %v", body, out, again, err)
		}
	})
}
