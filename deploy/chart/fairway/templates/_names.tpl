{{/* What selects the DaemonSet's pods; it can never change. */}}
{{- define "fairway.selector" -}}
app.kubernetes.io/name: fairway
app.kubernetes.io/component: agent
{{- end }}

{{- define "fairway.labels" -}}
{{ include "fairway.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fairway.image" -}}
{{- $repository := required "image.repository: must be where you have pushed Fairway's image; docs/install.md says how" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* The port that probes ask, or nothing. */}}
{{- define "fairway.probePort" -}}
{{- $address := index .Values.options "introspection-address" | default "127.0.0.1:61679" -}}
{{- if and .Values.probes (not (index .Values.options "disable-introspection")) -}}
{{- if not (regexMatch "^127\\.0\\.0\\.1:[0-9]+$" $address) -}}
{{- fail (printf "options.introspection-address %q: must be a port of 127.0.0.1 for the probes; or set probes to false" $address) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end -}}
{{- end }}

{{/* The port of the metrics, or nothing. */}}
{{- define "fairway.metricsPort" -}}
{{- $address := index .Values.options "metrics-address" -}}
{{- if kindIs "invalid" $address -}}{{- $address = ":61678" -}}{{- end -}}
{{- if not (index .Values.options "disable-metrics") -}}
{{- regexFind "[1-9][0-9]*$" $address -}}
{{- end -}}
{{- end }}

{{/* What a container that reads the options has of variables. */}}
{{- define "fairway.env" -}}
env:
# Which node it is on, for what it asks of the API server.
- name: MY_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a container of ours may do on its node, and what it has of it. */}}
{{- define "fairway.onNode" -}}
securityContext:
  runAsUser: 0 # its socket, its records and the runtime's directories are root's
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    # Routes, rules, nftables, devices, and the switches in /proc/sys/net. It never
    # enters a pod's namespace: the plugin hands it a socket from there.
    add: [NET_ADMIN]
volumeMounts:
- {name: options, mountPath: /etc/fairway, readOnly: true}
# The socket that the plugin finds it by, and the records. They outlive the pod.
- {name: run, mountPath: /run/fairway}
# 10-fairway.conflist, which makes the node ready.
- {name: cni-conf, mountPath: /etc/cni/net.d}
# Which further plugins there are.{{ if .Values.uninstall }} Ours goes.{{ end }}
- {name: cni-bin, mountPath: /opt/cni/bin, readOnly: {{ not .Values.uninstall }}}
# The switches of the node's network: a container may only read its own /proc/sys.
- {name: sysctl-net, mountPath: /host/proc/sys/net}
{{- if .Values.criSocket }}
# The directory and not the socket, which is another one after a restart of the runtime.
- {name: cri, mountPath: {{ dir .Values.criSocket }}, readOnly: true, mountPropagation: HostToContainer}
{{- end }}
{{- end }}
