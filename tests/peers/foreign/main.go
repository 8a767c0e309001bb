// Callbacks in Go. The first segment of the path selects one.
package main

import (
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
)

func main() {
	handle := func(name string, location func(request *http.Request, target string) string) {
		http.HandleFunc("/"+name+"/", func(response http.ResponseWriter, request *http.Request) {
			target := "https://api.nango.dev" + strings.TrimPrefix(request.URL.Path, "/"+name)
			response.Header().Set("Cache-Control", "no-store")
			response.Header().Set("Location", location(request, target))
			response.WriteHeader(http.StatusPermanentRedirect)
		})
	}
	raw := func(request *http.Request, target string) string {
		if request.URL.RawQuery == "" {
			return target
		}
		return target + "?" + request.URL.RawQuery
	}
	handle("correct", raw)
	// Sorted by name, and encoded again.
	handle("encoded", func(request *http.Request, target string) string {
		return target + "?" + request.URL.Query().Encode()
	})
	handle("first", func(request *http.Request, target string) string {
		query := url.Values{}
		for name := range request.URL.Query() {
			query.Set(name, request.URL.Query().Get(name))
		}
		return target + "?" + query.Encode()
	})
	handle("unescaped", func(request *http.Request, target string) string {
		query, _ := url.QueryUnescape(request.URL.RawQuery)
		return target + "?" + strings.NewReplacer("\r", "", "\n", "").Replace(query)
	})
	redirect := func(name string, status int) {
		http.HandleFunc("/"+name+"/", func(response http.ResponseWriter, request *http.Request) {
			target := "https://api.nango.dev" + strings.TrimPrefix(request.URL.Path, "/"+name)
			if status == http.StatusPermanentRedirect {
				response.Header().Set("Cache-Control", "no-store")
			}
			http.Redirect(response, request, raw(request, target), status)
		})
	}
	redirect("redirect", http.StatusPermanentRedirect)
	redirect("found", http.StatusFound)
	redirect("moved", http.StatusMovedPermanently)
	http.HandleFunc("/endless/", func(response http.ResponseWriter, request *http.Request) {
		target := "https://api.nango.dev" + strings.TrimPrefix(request.URL.Path, "/endless")
		response.Header().Set("Cache-Control", "no-store")
		response.Header().Set("Location", raw(request, target))
		response.WriteHeader(http.StatusPermanentRedirect)
		for {
			if _, err := response.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
