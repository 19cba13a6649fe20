package admin

import (
	"net/http"
	"time"
)

// streamPatience is how long whoever reads a long answer may take nothing of it.
const streamPatience = 30 * time.Second

// ErrorTrailer is the HTTP trailer that says what a long answer lacks.
const ErrorTrailer = "Tidegate-Error"

// stream is an answer of any length.
type stream struct {
	w           http.ResponseWriter
	control     *http.ResponseController
	contentType string
	begun       bool
}

func newStream(w http.ResponseWriter, contentType string) *stream {
	return &stream{w: w, control: http.NewResponseController(w), contentType: contentType}
}

// Write gives the reader time for each part.
func (s *stream) Write(b []byte) (int, error) {
	s.begin()
	if err := s.control.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

func (s *stream) begin() {
	if s.begun {
		return
	}
	s.begun = true
	s.w.Header().Set("Content-Type", s.contentType)
	s.w.Header().Set("Trailer", ErrorTrailer)
}

// end says why the answer is not complete, if it is not.
func (s *stream) end(err error) {
	s.begin()
	_ = s.control.Flush() // an empty answer has no trailer
	if err != nil {
		s.w.Header().Set(ErrorTrailer, oneLine(err))
	}
}
