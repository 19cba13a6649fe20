// Package admin is the gateway's one HTTP surface: the page, its API, metrics and
// health. It shows the state of every room; none of them knows it.
//
// There are five nouns. The [Sources] are the parts whose state is shown. A
// [Status] is the document that all of them together make; the page, the command
// `tidegate status` and the metrics say nothing that is not in it. A [Server]
// answers requests with it. The [Events] are the last changes of state, for whoever
// wants to see them as they happen. A [Control] answers those who may read the data
// directory: it shows messages, not only how many, and changes things.
//
// Nothing can be changed over the Server, and only this machine can reach it. A page of a
// stranger in a browser on this machine cannot either: requests for any other host
// are refused, whatever address its name leads to.
//
// # Goroutines
//
// Server.Serve starts the accept loop, which starts one goroutine per connection,
// at most 64. Serve returns when all of them have ended. Control.Serve does the same.
package admin
