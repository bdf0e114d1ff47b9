package chart
import (
 _ "github.com/prometheus/prometheus/promql"
 _ "github.com/prometheus/prometheus/promql/parser"
 _ "github.com/prometheus/prometheus/model/textparse"
 _ "github.com/prometheus/prometheus/storage"
)
