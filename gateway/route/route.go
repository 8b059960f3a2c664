// Package route finds the rule for a request: its main type is Table. Patterns are those of net/http's ServeMux; the most
// specific one wins.
package route
