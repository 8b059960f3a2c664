//go:build race

package vault

const raced = true // everything takes ten times as long
