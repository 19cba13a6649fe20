// Package repo holds the rules of this repository as tests.
//
// There are three nouns. The tree is every file that is or could be committed.
// A rule looks at the tree and returns what breaks it, each as
// "path:line: sentence". The table (rooms and modules in imports_test.go) says
// which package may import which, and why.
//
// A rule has two tests: the tree obeys it, and small made-up trees that break it
// are refused for the right reason.
package repo
