{{- /* Fails where nobody would hear the agents, or they would not start. */}}
{{- define "portcullis.metricsFit" -}}
{{- with .Values.metrics }}
{{- if .enabled }}
{{- if eq (int .port) (int $.Values.agent.healthzPort) }}
{{- fail "metrics.port and agent.healthzPort are the same port of the node." }}
{{- end }}
{{- if and .serviceMonitor.enabled (include "portcullis.metricsOnLoopback" .) }}
{{- fail (printf "metrics.serviceMonitor: Prometheus cannot scrape pods at metrics.bindAddress %s." .bindAddress) }}
{{- end }}
{{- else if .serviceMonitor.enabled }}
{{- fail "metrics.serviceMonitor: there are no metrics without metrics.enabled=true." }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Of .Values.metrics: not empty if only the node itself reaches the agent's port. */}}
{{- define "portcullis.metricsOnLoopback" -}}
{{- if or (hasPrefix "127." .bindAddress) (eq "::1" .bindAddress) }}true{{ end }}
{{- end }}
