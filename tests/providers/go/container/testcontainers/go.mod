module github.com/testcontainers/testcontainers-go

go 1.25.0

require github.com/docker/go-connections v0.6.0
