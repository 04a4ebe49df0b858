// A MySQL-compatible server in memory that is not MariaDB: what the proxy's tests try besides.
//
//	mysqlserver HOST:PORT
package main

import (
	"log"
	"os"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: mysqlserver HOST:PORT")
	}
	databases := memory.NewDBProvider(memory.NewDatabase("d"))
	config := server.Config{Protocol: "tcp", Address: os.Args[1]}
	s, err := server.NewServer(config, sqle.NewDefault(databases), sql.NewContext, memory.NewSessionBuilder(databases), nil)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Start())
}
