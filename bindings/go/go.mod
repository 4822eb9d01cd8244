module ortx

go 1.22
