// Package project is the workshop of plugin authors: the commands of `postern plugin`. Its main type is Project, a plugin's
// folder.
package project

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/project/trial"
	"github.com/postern-gateway/postern/gateway/schema"
	"github.com/postern-gateway/postern/sdk"
)

// Shell is what the commands may use of the program they are part of and of the world outside.
type Shell struct {
	Context context.Context // ends at the first interrupt
	Stdout  io.Writer
	Stderr  io.Writer
	ABIs    func() []plugin.ABI
	// Serve serves the configuration in a folder until ctx ends, and loads it again whenever changed says so.
	Serve func(ctx context.Context, dir string, changed <-chan struct{}) error
	// CacheDir is where modules compiled to machine code are kept between runs; empty: nowhere. What was not used for a week is
	// removed.
	CacheDir string
	Child    []string // the process that compiles modules, see plugin.Config; empty: this one
}

// Commands are the commands of `postern plugin`.
type Commands struct {
	New     newCommand     `cmd:"" help:"Make a project for a plugin, with the SDK in it, that builds and passes its test."`
	Build   buildCommand   `cmd:"" help:"Compile a plugin, pack its manifest into the module, and check that a gateway takes it."`
	Pack    packCommand    `cmd:"" help:"Put a manifest into a module."`
	Inspect inspectCommand `cmd:"" help:"Show what a module asks for, and whether a gateway takes it."`
	Test    testCommand    `cmd:"" help:"Run a plugin's tests, *_test.hcl, in the real host."`
	Bench   benchCommand   `cmd:"" help:"Measure what a plugin's events cost."`
	Run     runCommand     `cmd:"" help:"Serve one plugin in front of a URL, and load it again when it changes."`
}

// ErrTold ends a command whose mistake has been told already.
var ErrTold = errors.New("told")

// ManifestFile is the name of a manifest.
const ManifestFile = "plugin.hcl"

// maxRead is the largest module that is read, in octets. What a gateway takes is less; reading more makes it possible to say
// by how much.
const maxRead = 64 << 20

// maxPolicy is the longest policy.hcl that is read, in octets.
const maxPolicy = 1 << 20

// namePattern is what an operator can call a plugin, and every language a project.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// Project is a plugin's folder: plugin.hcl, sources, tests.
type Project struct {
	Dir      string // absolute
	Name     string // what operators call the plugin unless they choose otherwise: as policy.hcl does, or else the folder's name
	Manifest *manifest.Manifest
}

// Open reads a folder's plugin.hcl. Mistakes in it are told on the shell's Stderr, and ErrTold returned.
func (s *Shell) Open(dir string) (*Project, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := readFile(filepath.Join(abs, ManifestFile), manifest.MaxSize)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: name the folder of a plugin, or make one with postern plugin new", dir, ManifestFile)
	}
	if err != nil {
		return nil, err
	}
	m, err := s.parse(text, ManifestFile)
	if err != nil {
		return nil, err
	}
	return &Project{Dir: abs, Name: nameOf(abs), Manifest: m}, nil
}

// nameOf is the name by which the first stage of a folder's policy.hcl calls the plugin, so that a project has the same name
// wherever it lies; without one, the folder's.
func nameOf(dir string) string {
	text, err := readFile(filepath.Join(dir, trial.PolicyFile), maxPolicy)
	if err != nil {
		return filepath.Base(dir)
	}
	f := &schema.Findings{Sources: schema.Sources{trial.PolicyFile: text}}
	if !f.Shallow(trial.PolicyFile) {
		return filepath.Base(dir)
	}
	file, _ := hclsyntax.ParseConfig(text, trial.PolicyFile, hcl.InitialPos) // mistakes are told by whoever needs the file
	if file == nil {
		return filepath.Base(dir)
	}
	body, ok := file.Body.(*hclsyntax.Body)
	for i := 0; ok && i < len(body.Blocks); i++ {
		for _, stage := range body.Blocks[i].Body.Blocks {
			if _, phase := exchange.ParsePhase(stage.Type); phase && len(stage.Labels) == 1 && schema.NamePattern.MatchString(stage.Labels[0]) {
				return stage.Labels[0]
			}
		}
	}
	return filepath.Base(dir)
}

// parse reads a manifest's text as a gateway would, and tells what is wrong with it.
func (s *Shell) parse(text []byte, name string) (*manifest.Manifest, error) {
	m, diags := manifest.Parse(text, name)
	if !diags.HasErrors() {
		diags = append(diags, config.Sees(m, name, text)...)
	}
	if err := s.tell(schema.Sources{name: text}, diags); err != nil {
		return nil, err
	}
	return m, nil
}

// tell writes diagnostics, and returns ErrTold when there are errors among them.
func (s *Shell) tell(sources schema.Sources, diags hcl.Diagnostics) error {
	if len(diags) > 0 {
		if err := schema.WriteDiagnostics(s.Stderr, sources, diags, false); err != nil {
			return err
		}
	}
	if diags.HasErrors() {
		return ErrTold
	}
	return nil
}

// Module is where a build puts the project's module.
func (p *Project) Module() string { return filepath.Join(p.Dir, p.Name+".wasm") }

// Language tells the project's language by its files.
func (p *Project) Language() (sdk.Language, error) {
	l, ok := sdk.Detect(os.DirFS(p.Dir))
	if !ok {
		return l, fmt.Errorf("%s has sources in none of the languages that can be built here; build it yourself, then use postern plugin pack", p.Dir)
	}
	return l, nil
}

// alone is the plugin as its author runs it, from a module.
func (p *Project) alone(module string) *config.Plugin {
	return config.Alone(p.Name, module, p.Manifest)
}

// check loads a module as a gateway does: it is admitted, compiled, and started once. What is compiled is kept in cacheDir,
// if that is not empty.
func (s *Shell) check(p *config.Plugin, cacheDir string) (took time.Duration, err error) {
	host, err := plugin.NewHost(plugin.Config{ABIs: s.ABIs(), Child: s.Child, CacheDir: cacheDir})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(s.Context, 2*time.Minute)
	defer cancel()
	start := time.Now()
	pool, err := host.Load(ctx, p, nil)
	took = time.Since(start)
	if err == nil {
		err = pool.Close(ctx)
	}
	return took, errors.Join(err, host.Close(ctx))
}

// keptFor is how long compiled modules are kept after their last use, as far as the file system tells.
const keptFor = 7 * 24 * time.Hour

// cache returns the folder for compiled modules, without those that nobody has used for long.
func (s *Shell) cache() string {
	if s.CacheDir == "" {
		return ""
	}
	_ = filepath.WalkDir(s.CacheDir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil && time.Since(info.ModTime()) > keptFor {
				_ = os.Remove(name) // what can not be removed stays
			}
		}
		return nil
	})
	return s.CacheDir
}

// readFile reads a file of at most so many octets.
func readFile(name string, most int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s is no file, or has more than %d octets", name, most)
	}
	return os.ReadFile(name)
}

// writeFile replaces a file in one go, so that who reads it finds the old one or the new one whole.
func writeFile(name string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// writeJSON writes a value as one indented JSON document.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
