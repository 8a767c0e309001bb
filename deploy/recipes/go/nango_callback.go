package main

import (
	"io"
	"net/http"
	"strings"
)

// HandleNangoCallback adds the routes of the callback.
func HandleNangoCallback(mux *http.ServeMux) {
	// @EACH@
	mux.HandleFunc("@PATH@", redirectToNango("@TARGET@"))
	// @END@
}

func redirectToNango(target string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// The query as received: `r.URL.Query().Encode()` would sort it and encode it again.
		query, status := r.URL.RawQuery, http.StatusPermanentRedirect
		if r.Method == http.MethodPost {
			if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
				w.WriteHeader(http.StatusUnsupportedMediaType)
				return
			}
			form, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 100_000))
			if err != nil {
				http.Error(w, "the form is too large", http.StatusRequestEntityTooLarge)
				return
			}
			if query != "" && len(form) > 0 {
				query += "&"
			}
			query, status = query+string(form), http.StatusSeeOther
		} else if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		location := target
		if query != "" {
			location += "?" + query
		}
		w.Header().Set("Location", location)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
	}
}
