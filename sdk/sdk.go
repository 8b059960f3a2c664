// Package sdk holds the text of the SDKs, so that the postern program can begin a plugin anywhere, without a network.
// Its main type is Language. A project gets the SDK's sources as a folder of its own, called postern: it needs nothing that has to be
// downloaded, and goes on building whatever becomes of the SDK.
package sdk

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Each file is named by kind, so that nothing that a build leaves in these folders gets in.
//
//go:embed go/*.go go/json/*.go go/field/*.go go/example/main.go go/example/plugin.hcl abi/*.go
//go:embed c/build c/postern.h c/example/policy.c c/example/plugin.hcl
//go:embed rust/build rust/Cargo.toml rust/src/*.rs rust/example/Cargo.toml rust/example/Cargo.lock rust/example/src/lib.rs rust/example/plugin.hcl
//go:embed assemblyscript/build assemblyscript/package.json assemblyscript/package-lock.json assemblyscript/.npmrc
//go:embed assemblyscript/assembly/*.ts assemblyscript/example/assembly/*.ts assemblyscript/example/plugin.hcl
//go:embed zig/build zig/postern.zig zig/example/policy.zig zig/example/plugin.hcl
var files embed.FS

// Folder is the folder of a project that holds the SDK's sources.
const Folder = "postern"

// Language is a language that plugins are written in.
type Language struct {
	Name   string // the word on the command line, and the SDK's folder
	Title  string // its name in a text
	Source string // the policy of a new project
	Needs  string // what has to be installed to build, and how it is got, for people

	marks   []string    // patterns of the files that tell a project of this language
	copies  [][2]string // patterns of files, and the folder of a project they go to; "x/*" is the file's own folder in x
	replace []string    // old and new texts in these files; NAME is the project's name
	more    [][2]string // further files and their texts
	taken   string      // names that a project can not have, between spaces
}

// Languages lists the languages, as they are listed to people. The order also decides what a folder with several of
// them is taken for.
func Languages() []Language {
	return []Language{
		{
			Name: "go", Title: "Go", Source: "main.go", Needs: "Go 1.24 or later: https://go.dev/dl",
			marks:  []string{"go.mod", "*.go"},
			copies: [][2]string{{"go/example/main.go", ""}, {"go/example/plugin.hcl", ""}, {"go/*.go", Folder}, {"go/*/*.go", Folder + "/*"}, {"go/field/*.go", Folder + "/field"}, {"abi/*.go", Folder + "/abi"}},
			replace: []string{
				`"github.com/postern-gateway/postern/sdk/abi"`, `"NAME/postern/abi"`,
				`"github.com/postern-gateway/postern/sdk/go"`, `"NAME/postern"`,
				`"github.com/postern-gateway/postern/sdk/go/`, `"NAME/postern/`,
				"// Command example is", "// Command NAME is",
			},
			more: [][2]string{{"go.mod", "module NAME\n\ngo 1.24\n"}},
			// A module of the name of one of the standard library's top folders is taken for it.
			taken: " archive arena bufio builtin bytes cmd cmp compress container context crypto database debug embed encoding errors expvar flag fmt " +
				"go hash html image index internal io iter log main maps math mime net os path plugin reflect regexp runtime slices sort strconv strings " +
				"structs sync syscall testing text time unicode unique unsafe vendor weak ",
		},
		{
			Name: "rust", Title: "Rust", Source: "src/lib.rs", Needs: "Rust with the target wasm32-unknown-unknown: rustup target add wasm32-unknown-unknown",
			marks: []string{"Cargo.toml"},
			copies: [][2]string{
				{"rust/example/*.*", ""}, {"rust/example/src/*", "src"},
				{"rust/build", Folder}, {"rust/Cargo.toml", Folder}, {"rust/src/*", Folder + "/src"},
			},
			replace: []string{`name = "greet"`, `name = "NAME"`, `path = ".."`, `path = "postern"`},
			taken: " abstract alloc as async await become box break build const continue core crate deps do dyn else enum examples extern false final fn for gen if " +
				"impl in incremental let loop macro match mod move mut override priv proc_macro pub ref return static std struct super test trait true try type " +
				"typeof unsafe unsized use virtual where while yield ",
		},
		{
			Name: "assemblyscript", Title: "AssemblyScript", Source: "assembly/index.ts",
			Needs: "Node.js 20 or later and npm, which fetches the compiler the first time: https://nodejs.org",
			marks: []string{"assembly/*.ts"},
			copies: [][2]string{
				{"assemblyscript/example/*.hcl", ""}, {"assemblyscript/example/assembly/*", "assembly"},
				{"assemblyscript/build", Folder}, {"assemblyscript/package*.json", Folder}, {"assemblyscript/.npmrc", Folder},
				{"assemblyscript/assembly/*", Folder + "/assembly"},
			},
			replace: []string{`"../../assembly`, `"../postern/assembly`},
		},
		{
			Name: "c", Title: "C", Source: "policy.c", Needs: "clang and lld: apt-get install clang lld",
			marks:  []string{"*.c", "*.cc", "*.cpp"},
			copies: [][2]string{{"c/example/*", ""}, {"c/build", Folder}, {"c/postern.h", Folder}},
		},
		{
			Name: "zig", Title: "Zig", Source: "policy.zig", Needs: "Zig 0.14 or later: pip install ziglang, or https://ziglang.org/download",
			marks:  []string{"*.zig"},
			copies: [][2]string{{"zig/example/*", ""}, {"zig/build", Folder}, {"zig/postern.zig", Folder}},
		},
	}
}

// Find returns the language called name.
func Find(name string) (Language, bool) {
	for _, l := range Languages() {
		if l.Name == name {
			return l, true
		}
	}
	return Language{}, false
}

// Names lists the languages' names.
func Names() []string {
	var list []string
	for _, l := range Languages() {
		list = append(list, l.Name)
	}
	return list
}

// Detect tells the language of the project in a folder by its files.
func Detect(dir fs.FS) (Language, bool) {
	for _, l := range Languages() {
		for _, mark := range l.marks {
			if names, err := fs.Glob(dir, mark); err == nil && len(names) > 0 {
				return l, true
			}
		}
	}
	return Language{}, false
}

// Takes reports whether a project can have that name as far as the language is concerned.
func (l Language) Takes(name string) bool { return !strings.Contains(l.taken, " "+name+" ") }

// Project returns the files of a new project, by their names with slashes: the SDK's example policy with its manifest, and
// the SDK. What else a project needs is the same for every language and not the SDK's.
func (l Language) Project(name string) (map[string][]byte, error) {
	made := map[string][]byte{}
	replace := slices.Clone(l.replace)
	for i := range replace {
		replace[i] = strings.ReplaceAll(replace[i], "NAME", name)
	}
	replacer := strings.NewReplacer(replace...)
	for _, c := range l.copies {
		names, err := fs.Glob(files, c[0])
		if err != nil || len(names) == 0 {
			return nil, fmt.Errorf("the SDK for %s has no %s", l.Title, c[0])
		}
		for _, from := range names {
			to, own := strings.CutSuffix(c[1], "*")
			if own {
				to += path.Base(path.Dir(from))
			}
			if strings.HasSuffix(from, "_test.go") || own && slices.Contains([]string{"example", "conformance"}, path.Base(to)) {
				continue
			}
			text, err := fs.ReadFile(files, from)
			if err != nil {
				return nil, err
			}
			made[path.Join(to, path.Base(from))] = []byte(replacer.Replace(string(text)))
		}
	}
	for _, m := range l.more {
		made[m[0]] = []byte(strings.ReplaceAll(m[1], "NAME", name))
	}
	return made, nil
}

// Script returns the text of the SDK's build script: a POSIX shell script that is called with a project's folder and the
// module to write. nil: the language needs none.
func (l Language) Script() []byte {
	text, err := fs.ReadFile(files, l.Name+"/build")
	if err != nil {
		return nil
	}
	return text
}
