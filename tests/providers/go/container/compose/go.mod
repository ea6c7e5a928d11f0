module github.com/testcontainers/testcontainers-go/modules/compose

go 1.25.0

require github.com/testcontainers/testcontainers-go v0.40.0
