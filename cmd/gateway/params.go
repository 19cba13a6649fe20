package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// params are the flags and arguments of a command. In what is said of a flag,
// `WORD` is the name of its value.
type params struct {
	*pflag.FlagSet
	args []arg
}

// arg is an argument: what is not a flag, and is told by its place.
type arg struct {
	value    *string
	name     string
	optional bool
	help     string
}

// arg declares an argument that must be given.
func (p *params) arg(value *string, name, help string) {
	p.args = append(p.args, arg{value, name, false, help})
}

// optional declares an argument that may be left out. It is the last one.
func (p *params) optional(value *string, name, help string) {
	p.args = append(p.args, arg{value, name, true, help})
}

// require makes a flag one that must be given.
func (p *params) require(name string) {
	// The name is one of ours, which each call of the command would find wrong.
	_ = cobra.MarkFlagRequired(p.FlagSet, name)
}

// use is how the arguments are written: " FILE [TOPIC]".
func (p *params) use() string {
	var b strings.Builder
	for _, a := range p.args {
		if a.optional {
			fmt.Fprintf(&b, " [%s]", a.name)
		} else {
			fmt.Fprintf(&b, " %s", a.name)
		}
	}
	return b.String()
}

// take gives the arguments their values.
func (p *params) take(given []string) error {
	for _, a := range p.args {
		switch {
		case len(given) > 0:
			*a.value, given = given[0], given[1:]
		case !a.optional:
			return fmt.Errorf("%s is missing", a.name)
		}
	}
	if len(given) > 0 {
		return fmt.Errorf("unexpected argument %s", given[0])
	}
	return nil
}

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if best := nearest(unknown.GetSpecifiedName(), known); best != "" {
		return fmt.Errorf(`unknown flag --%s, did you mean "--%s"?`, unknown.GetSpecifiedName(), best)
	}
	return err
}

// choice is a flag that has one of a few values.
type choice[T comparable] struct {
	value *T
	from  []T
}

func (c choice[T]) String() string {
	if c.value == nil {
		return ""
	}
	return fmt.Sprint(*c.value)
}

// Set takes the value that is written so.
func (c choice[T]) Set(text string) error {
	i := slices.Index(c.words(), text)
	if i < 0 {
		last := len(c.from) - 1
		return fmt.Errorf("it is %s or %s", strings.Join(c.words()[:last], ", "), c.words()[last])
	}
	*c.value = c.from[i]
	return nil
}

// Type is shown as the name of the value.
func (c choice[T]) Type() string { return strings.Join(c.words(), "|") }

func (c choice[T]) words() []string {
	var list []string
	for _, v := range c.from {
		list = append(list, fmt.Sprint(v))
	}
	return list
}

// chosen declares a flag that has one of the values from, the first one if it
// is not given.
func chosen[T comparable](p *params, value *T, name, short, help string, from ...T) {
	*value = from[0]
	p.VarP(choice[T]{value, from}, name, short, help)
}
