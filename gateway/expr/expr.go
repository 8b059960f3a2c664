// Package expr is request-time expressions: type-checked when the configuration loads, compiled to closures that neither
// allocate nor know HCL. Its main type is Program.
package expr
