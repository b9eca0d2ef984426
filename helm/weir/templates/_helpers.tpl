{{/*
Names, labels and images: whatever two templates have to agree on.
*/}}

{{/* The prefix of labels and annotations: inject::API_PREFIX in the code. */}}
{{- define "weir.api" -}}
weir.dev
{{- end -}}

{{- define "weir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut to 50 characters, so that what is made of it stays below the 63 that a Service and a label may have. */}}
{{- define "weir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "weir.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "weir.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of the injector's Deployment, Service, webhook configuration and all else that there is one of. */}}
{{- define "weir.injector.name" -}}
{{- printf "%s-injector" (include "weir.fullname" .) -}}
{{- end -}}

{{- define "weir.injector.serviceAccount" -}}
{{- .Values.injector.serviceAccount.name | default (ternary (include "weir.injector.name" .) "default" .Values.injector.serviceAccount.create) -}}
{{- end -}}

{{/* The Secret that has the webhook's certificate, whoever makes it. */}}
{{- define "weir.injector.secret" -}}
{{- if eq .Values.certificates.mode "provided" -}}
{{- .Values.certificates.provided.secretName -}}
{{- else -}}
{{- printf "%s-tls" (include "weir.injector.name" .) -}}
{{- end -}}
{{- end -}}

{{- define "weir.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: weir
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "weir.selectorLabels" -}}
app.kubernetes.io/name: {{ include "weir.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weir.injector.labels" -}}
{{ include "weir.labels" . }}
app.kubernetes.io/component: injector
{{- end -}}

{{- define "weir.injector.selectorLabels" -}}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/component: injector
{{- end -}}

{{/* repository:tag, and what the digest says the image is. Takes {image, root}. */}}
{{- define "weir.imageName" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
{{- with .image.digest -}}
{{- printf "%s:%s@%s" $.image.repository $tag . -}}
{{- else -}}
{{- printf "%s:%s" .image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "weir.injector.image" -}}
{{- include "weir.imageName" (dict "image" .Values.image "root" .) -}}
{{- end -}}

{{/* The sidecar's image: its own where it has a repository, else the injector's, digest and all. */}}
{{- define "weir.sidecar.image" -}}
{{- $image := ternary .Values.sidecar.image .Values.image (ne .Values.sidecar.image.repository "") -}}
{{- include "weir.imageName" (dict "image" $image "root" .) -}}
{{- end -}}

{{/* Where the webhook's certificate is found in the Pod, unless weir makes it. */}}
{{- define "weir.injector.tlsDirectory" -}}
/etc/weir-tls
{{- end -}}

{{/* labels and annotations of an object for monitoring. Takes {object, root}. */}}
{{- define "weir.monitoring.metadata" -}}
namespace: {{ .object.namespace | default .root.Release.Namespace }}
labels:
  {{- include "weir.labels" .root | nindent 2 }}
  {{- with .object.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .object.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One endpoint of a monitor. Takes the monitor's values. */}}
{{- define "weir.monitoring.endpoint" -}}
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
