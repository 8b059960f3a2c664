package main

import (
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/attribute"
	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// servingPackages are the packages of the program that serves: not those that only build, test or measure.
func servingPackages(list []*pkg) []*pkg {
	return slices.DeleteFunc(slices.Clone(list), func(p *pkg) bool {
		return !strings.HasPrefix(p.dir+"/", "gateway/") || slices.ContainsFunc([]string{"bench", "conformance", "desync", "project"}, func(part string) bool {
			return strings.HasPrefix(p.dir+"/", "gateway/"+part+"/")
		})
	})
}

func literalText(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// TestRegisterKnowsLogs reads every call that logs or adds to a span: each key stands in package field, as personal data
// or as what is about nobody.
func TestRegisterKnowsLogs(t *testing.T) {
	_, list, set := packages(t)
	first := map[string]int{ // the argument that is the first key
		"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3, "LogAttrs": 3, "With": 0,
	}
	found := 0
	for _, p := range servingPackages(list) {
		for _, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				name, on := sel.Sel.Name, lastName(sel.X)
				check := func(e ast.Expr) {
					key, literal := literalText(e)
					found++
					if !literal {
						t.Errorf("%s: the key of what is logged is not written out, so nobody can tell what it is", set.Position(e.Pos()))
					} else if _, known := field.OfLog(key); !known {
						t.Errorf("%s: %q is logged and stands in no list of gateway/privacy/field: add it to the Log of the field it holds or, if it is about nobody, to Impersonal", set.Position(e.Pos()), key)
					}
				}
				switch at, logs := first[name]; {
				case (on == "slog" || on == "attribute") && len(call.Args) == 2 && slices.Contains([]string{"String", "Int", "Int64", "Uint64", "Float64", "Bool", "Duration", "Time", "Any", "Group", "StringSlice"}, name):
					check(call.Args[0])
				case logs && (strings.EqualFold(on, "log") || strings.EqualFold(on, "logger") || on == "slog" || strings.HasSuffix(name, "Context") || name == "LogAttrs"):
					for i := at; i < len(call.Args); i += 2 {
						if c, attr := call.Args[i].(*ast.CallExpr); attr && i < len(call.Args) {
							if s, ok := c.Fun.(*ast.SelectorExpr); ok && lastName(s.X) == "slog" {
								i-- // an Attr, which is one argument and was looked at by itself
								continue
							}
						}
						if call.Ellipsis.IsValid() && i == len(call.Args)-1 {
							continue // a list of Attrs
						}
						check(call.Args[i])
					}
				}
				return true
			})
		}
	}
	if found < 150 {
		t.Errorf("found %d keys: the search is broken", found)
	}
}

// lastName is the last name of a selector: telemetry.Log is "Log".
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// TestRegisterKnowsLabels: what metrics are told apart by is about nobody.
func TestRegisterKnowsLabels(t *testing.T) {
	_, list, set := packages(t)
	found := 0
	for _, p := range servingPackages(list) {
		for _, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || lastName(sel.X) != "prometheus" {
					return true
				}
				for _, a := range call.Args {
					l, ok := a.(*ast.CompositeLit)
					if !ok {
						continue
					}
					if _, array := l.Type.(*ast.ArrayType); !array {
						continue
					}
					for _, e := range l.Elts {
						label, literal := literalText(e)
						found++
						if !literal || !slices.Contains(field.Impersonal().Labels, label) {
							t.Errorf("%s: metrics are told apart by %q, which does not stand in Labels of gateway/privacy/field", set.Position(e.Pos()), label)
						}
					}
				}
				return true
			})
		}
	}
	if found < 20 {
		t.Errorf("found %d labels: the search is broken", found)
	}
}

// TestRegisterKnowsAttributes: whatever a manifest can list is in the register.
func TestRegisterKnowsAttributes(t *testing.T) {
	for _, a := range slices.Concat(attribute.All(), attribute.Groups()) {
		if _, known := field.OfAttribute(a.Name); !known {
			t.Errorf("plugins can see %s, which stands in no list of gateway/privacy/field: add it to the Attributes of the field it shows or, if it is about nobody, to Impersonal", a.Name)
		}
	}
}

// TestRegisterKnowsRecords: every place in the store is known, and every field of the record there.
func TestRegisterKnowsRecords(t *testing.T) {
	_, list, set := packages(t)
	key := regexp.MustCompile(`^[a-z]+/[a-z/]*$`)
	media := regexp.MustCompile(`^(application|text|image|audio|video|multipart|message)/`)
	stored := field.Stored()
	seen := map[string]bool{}
	writers := map[string]token.Pos{} // packages that write, without a place of their own so far
	for _, p := range servingPackages(list) {
		if p.dir == "gateway/privacy/field" || strings.HasPrefix(p.dir, "gateway/state") {
			continue
		}
		uses := p.dir == "gateway/ledger/record" // names the keys that package ledger writes
		for _, f := range p.files {
			uses = uses || slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(module+"/gateway/state") })
		}
		if !uses {
			continue
		}
		places, writes := 0, token.NoPos
		for _, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ImportSpec:
					return false
				case *ast.SelectorExpr:
					if n.Sel.Name == "Put" && lastName(n.X) != "b" || n.Sel.Name == "PutTTL" {
						writes = n.Pos()
					}
				case *ast.BasicLit:
					name, ok := literalText(n)
					if !ok || !key.MatchString(name) || media.MatchString(name) {
						return true
					}
					places++
					place := strings.TrimSuffix(name, "/")
					seen[place] = true
					if _, known := stored[place]; !known {
						t.Errorf("%s: %q looks like a place in the store that gateway/privacy/field does not know: say in Stored which record stands there, and in Records of which field each part of it is", set.Position(n.Pos()), name)
					}
				}
				return true
			})
		}
		if writes.IsValid() && places == 0 {
			writers[p.dir] = writes
		}
	}
	// Whoever writes under a prefix that it is given has it from package server.
	for dir, pos := range writers {
		if !seen[path.Base(dir)] && dir != "gateway/ledger" {
			t.Errorf("%s: %s writes to the store, and no place there bears its name", set.Position(pos), dir)
		}
	}
	for place, record := range stored {
		if !seen[place] {
			t.Errorf("Stored names %q, which nothing uses", place)
		}
		if record != "" {
			dir, name, _ := strings.Cut(record, ".")
			for _, part := range partsOf(t, list, "gateway/"+dir, name) {
				if _, known := field.OfRecord(dir + "." + part); !known {
					t.Errorf("%s.%s is stored and stands in no list of gateway/privacy/field: add it to the Records of the field it holds or, if it is about nobody, to Impersonal", dir, part)
				}
			}
		}
	}
	for _, f := range field.All() {
		for _, r := range f.Records {
			dir, rest, _ := strings.Cut(r, ".")
			typ, part, _ := strings.Cut(rest, ".")
			if all := partsOf(t, list, "gateway/"+dir, typ); part != "*" && !slices.Contains(all, rest) {
				t.Errorf("%s: there is no %s", f.Name, r)
			}
		}
	}
}

// partsOf are the fields of a struct as "Type.Field", those of embedded ones under the name of their own type.
func partsOf(t *testing.T, list []*pkg, dir, name string) (out []string) {
	t.Helper()
	i := slices.IndexFunc(list, func(p *pkg) bool { return p.dir == dir })
	if i < 0 {
		t.Errorf("there is no package %s", dir)
		return nil
	}
	for _, f := range list[i].files {
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range gen.Specs {
				ts, ok := s.(*ast.TypeSpec)
				if !ok || ts.Name.Name != name {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					t.Errorf("%s.%s is no struct", dir, name)
					return nil
				}
				for _, part := range st.Fields.List {
					if part.Names == nil {
						out = append(out, embedded(t, list, dir, part.Type)...)
					}
					for _, n := range part.Names {
						out = append(out, name+"."+n.Name)
					}
				}
			}
		}
	}
	if out == nil {
		t.Errorf("there is no %s.%s", dir, name)
	}
	return out
}

// embedded are the parts of an embedded struct. One of another package is a place of its own: "gateway/exchange" and
// "Allowance" have to be in the register as exchange.Allowance.
func embedded(t *testing.T, list []*pkg, dir string, e ast.Expr) []string {
	t.Helper()
	sel, other := e.(*ast.SelectorExpr)
	if !other {
		return partsOf(t, list, dir, lastName(e))
	}
	from, known := map[string]string{"exchange": "exchange", "factor": "person/factor"}[lastName(sel.X)] // whose structs are parts of records
	if !known {
		t.Errorf("%s embeds %s.%s: this test does not know where that is", dir, lastName(sel.X), sel.Sel.Name)
		return nil
	}
	for _, part := range partsOf(t, list, "gateway/"+from, sel.Sel.Name) {
		if _, known := field.OfRecord(from + "." + part); !known {
			t.Errorf("%s.%s is stored as a part of a record of %s and stands in no list of gateway/privacy/field", from, part, dir)
		}
	}
	return nil
}

// TestRegister: names are told apart, belong to a built-in class and are described in both languages; nothing stands in two fields.
func TestRegister(t *testing.T) {
	owners := map[string]string{}
	for _, f := range field.All() {
		if f.Class == "" || f.About.En == "" || f.About.Zh == "" {
			t.Errorf("%s lacks a class or a description", f.Name)
		}
		plain := field.Impersonal()
		for kind, names := range map[string][]string{"name": {f.Name}, "log": slices.Concat(f.Log, f.Access), "span": f.Spans, "attribute": f.Attributes, "header": f.Headers, "record": f.Records} {
			for _, n := range names {
				if other, taken := owners[kind+" "+n]; taken {
					t.Errorf("%s %s stands in %s and in %s", kind, n, other, f.Name)
				}
				owners[kind+" "+n] = f.Name
			}
		}
		for kind, names := range map[string][]string{"log": plain.Log, "span": plain.Spans, "attribute": plain.Attributes, "header": plain.Headers, "record": plain.Records} {
			for _, n := range names {
				if owners[kind+" "+n] == f.Name {
					t.Errorf("%s %s stands in %s and in Impersonal", kind, n, f.Name)
				}
			}
		}
	}
	if len(slices.Collect(maps.Keys(owners))) < 100 {
		t.Error("the register is nearly empty")
	}
}
