package main

import (
	"net/http"
	"os"
)

func main() {
	mux := http.NewServeMux()
	HandleNangoCallback(mux)
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux))
}
