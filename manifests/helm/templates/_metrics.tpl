{{- /* Fails where nobody would hear the agents, or they would not start. */}}
{{- define "portcullis.metricsFit" -}}
{{- with .Values.metrics }}
{{- if .enabled }}
{{- if eq (int .port) (int $.Values.agent.healthzPort) }}
{{- fail "metrics.port and agent.healthzPort are the same port of the node." }}
{{- end }}
{{- if and .podMonitor.enabled (or (hasPrefix "127." .bindAddress) (eq "::1" .bindAddress)) }}
{{- fail (printf "metrics.podMonitor: Prometheus cannot scrape pods at metrics.bindAddress %s." .bindAddress) }}
{{- end }}
{{- else if .podMonitor.enabled }}
{{- fail "metrics.podMonitor: there are no metrics without metrics.enabled=true." }}
{{- end }}
{{- end }}
{{- end }}
