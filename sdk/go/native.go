//go:build !wasip1

package postern

// Register makes p the module's plugin. It stands in a variable declaration of package main, so that it has happened when
// the gateway first calls: var _ = postern.Register(&policy{}). Outside a module it does nothing: tests hand their own
// Plugin to plugintest.
func Register(Plugin) struct{} { return struct{}{} }
