package main

import (
	"errors"
	"path/filepath"

	"tidegate/broker/auth"
)

// checkAccessFiles reads the files that say who may connect and what clients may
// do, so that what is wrong in them is found before the gateway starts. The broker
// reads them itself, as often as it is told to: unlike secrets they are no part of
// the configuration. Relative names start at the folder of the configuration file
// that has them.
func (l *loader) checkAccessFiles(c *Config) {
	l.checkFile("broker.password_file", &c.Broker.PasswordFile, func(name string) error {
		_, err := auth.LoadPasswords(name)
		return err
	})
	l.checkFile("broker.acl_file", &c.Broker.ACLFile, func(name string) error {
		_, err := auth.LoadACL(name)
		return err
	})
}

// checkFile makes the name at path absolute and notes what load finds wrong.
func (l *loader) checkFile(path string, name *string, load func(name string) error) {
	if *name == "" || l.isFaulty(path) {
		return
	}
	at := l.placeOf(path)
	if !filepath.IsAbs(*name) {
		*name = filepath.Join(filepath.Dir(at.file), *name)
	}
	err := load(*name)
	var lines auth.LineErrors
	switch {
	case errors.As(err, &lines):
		for _, e := range lines {
			l.errs = append(l.errs, Error{File: e.File, Line: e.Line, Col: 1, Text: e.Reason})
		}
	case err != nil:
		l.failAt(path, at, "%s: %s", *name, readProblem(err))
	}
}
