package main

import "encoding/json"

// outputFlag is the -o flag of commands that print data.
type outputFlag struct {
	Output string
}

func (f *outputFlag) define(p *params) {
	chosen(p, &f.Output, "output", "o", "How to print it.", "text", "json")
}

// printJSON writes v for programs.
func printJSON(std stdio, v any) error {
	enc := json.NewEncoder(std.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
