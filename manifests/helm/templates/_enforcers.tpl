{{- /* Fails where another program enforces policies. Without a cluster nothing is known of
its APIs, so `helm template` renders. */}}
{{- define "portcullis.onlyEnforcer" -}}
{{- if not .Values.besideOtherEnforcers }}
{{- range $api, $name := dict "crd.projectcalico.org/v1" "Calico" "projectcalico.org/v3" "Calico" "cilium.io/v2" "Cilium" "crd.antrea.io/v1beta1" "Antrea" "k8s.ovn.org/v1" "OVN-Kubernetes" }}
{{- if $.Capabilities.APIVersions.Has $api }}
{{- fail (printf "This cluster has the API of %s (%s), which enforces NetworkPolicies itself and needs no second enforcer. If it does not do that here, set besideOtherEnforcers=true." $name $api) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
