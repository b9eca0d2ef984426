{{- /*
The sidecar, and what the app needs to use it: the same container that the injector makes (tests/helm/test_library.py).
Each takes the root of the chart that includes it.
*/ -}}

{{- /* The sidecar: one item of `initContainers`, after those of a mesh and before those that call models. */ -}}
{{- define "weir.lib.sidecar" -}}
{{- $weir := include "weir.lib.values" . | fromYaml -}}
{{- $workload := $weir.workload.name | default .Release.Name -}}
{{- range $name := list "POD_NAME" "POD_NAMESPACE" "POD_UID" "NODE_NAME" "WEIR_CONFIG" "WEIR_CONFIG_IF_PRESENT" "WEIR_ADMIN__LISTEN" "WEIR_LISTEN" "WEIR_DEFAULTS" "OTEL_RESOURCE_ATTRIBUTES" "OTEL_SERVICE_NAME" -}}
{{- if hasKey $weir.env $name -}}
{{- fail (printf "weir-lib.env.%s: the library sets it itself, from other values" $name) -}}
{{- end -}}
{{- end -}}
{{- $env := deepCopy $weir.env -}}
{{- with $weir.defaults -}}
{{- $env = set $env "WEIR_DEFAULTS" (toJson .) -}}
{{- end -}}
name: weir
image: {{ include "weir.lib.image" $weir }}
{{- with $weir.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
args: [run]
restartPolicy: Always
ports:
  - name: weir-admin
    containerPort: {{ int $weir.adminPort }}
env:
  {{- range list (list "POD_NAME" "metadata.name") (list "POD_NAMESPACE" "metadata.namespace") (list "POD_UID" "metadata.uid") (list "NODE_NAME" "spec.nodeName") }}
  - name: {{ first . }}
    valueFrom:
      fieldRef:
        fieldPath: {{ last . }}
  {{- end }}
  {{- if $weir.configMap }}
  - name: WEIR_CONFIG_IF_PRESENT
    value: /etc/weir/weir.yaml
  {{- end }}
  - name: WEIR_ADMIN__LISTEN
    value: {{ printf "0.0.0.0:%d" (int $weir.adminPort) }}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: {{ include "weir.lib.attributes" (dict "weir" $weir "workload" $workload) }}
  - name: OTEL_SERVICE_NAME
    value: {{ $weir.service | default $workload | quote }}
  {{- range $name, $value := $env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  - name: WEIR_LISTEN
    value: {{ printf "127.0.0.1:%d" (int $weir.port) }}
{{- if $weir.await }}
startupProbe:
  httpGet:
    path: /readyz
    port: weir-admin
  periodSeconds: 1
  failureThreshold: 30
{{- end }}
readinessProbe:
  httpGet:
    path: /readyz
    port: weir-admin
  periodSeconds: 10
livenessProbe:
  httpGet:
    path: /livez
    port: weir-admin
  periodSeconds: 20
  timeoutSeconds: 3
{{- with $weir.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  {{- if not (kindIs "invalid" $weir.runAsUser) }}
  runAsUser: {{ int64 $weir.runAsUser }}
  runAsGroup: {{ int64 $weir.runAsUser }}
  {{- end }}
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
terminationMessagePolicy: FallbackToLogsOnError
{{- if $weir.configMap }}
volumeMounts:
  - name: weir-config
    mountPath: /etc/weir
    readOnly: true
{{- end }}
{{- end -}}

{{- /* What leads the app's SDKs to weir: items of `env`. */ -}}
{{- define "weir.lib.env" -}}
{{- $weir := include "weir.lib.values" . | fromYaml -}}
{{- $variables := list
  (list "openai" "OPENAI_BASE_URL" "OPENAI_API_BASE")
  (list "anthropic" "ANTHROPIC_BASE_URL")
  (list "gemini" "GOOGLE_GEMINI_BASE_URL")
  (list "vertex" "GOOGLE_VERTEX_BASE_URL")
  (list "groq" "GROQ_BASE_URL")
  (list "cohere" "CO_API_URL")
  (list "azure" "AZURE_OPENAI_ENDPOINT") -}}
{{- $lines := list -}}
{{- range $variables -}}
{{- $family := first . -}}
{{- if has $family $weir.providers -}}
{{- $url := printf "http://127.0.0.1:%d/%s%s" (int $weir.port) $family (ternary "/v1" "" (eq $family "openai")) -}}
{{- range $name := rest . -}}
{{- $lines = append $lines (dict "name" $name "value" $url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $lines -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- /* What the sidecar mounts: items of `volumes`. */ -}}
{{- define "weir.lib.volumes" -}}
{{- $weir := include "weir.lib.values" . | fromYaml -}}
{{- with $weir.configMap -}}
- name: weir-config
  configMap:
    name: {{ . }}
    optional: true
    defaultMode: 292
{{- end -}}
{{- end -}}

{{- /* How monitors find it, and that the injector need not be asked: entries of the Pod's `labels`. */ -}}
{{- define "weir.lib.podLabels" -}}
weir.dev/injected: "true"
weir.dev/inject: "false"
{{- end -}}

{{- /* Where the sidecar comes from: entries of the Pod's `annotations`. */ -}}
{{- define "weir.lib.podAnnotations" -}}
weir.dev/status: {{ dict "version" (include "weir.lib.version" .) "mode" "native" "by" "weir-lib" | toJson | quote }}
{{- end -}}

{{- /* What the Pod is, by variables that the node fills in, and what it is made from. */ -}}
{{- define "weir.lib.attributes" -}}
service.namespace=$(POD_NAMESPACE),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME)
{{- with .weir.workload.kind -}}
,k8s.{{ lower . }}.name={{ $.workload }}
{{- end -}}
{{- end -}}

{{- define "weir.lib.values" -}}
{{- $weir := get .Values "weir-lib" -}}
{{- if not $weir -}}
{{- fail "there is no `weir-lib` in the values: name weir-lib in the dependencies of Chart.yaml, without an alias" -}}
{{- end -}}
{{- toYaml $weir -}}
{{- end -}}

{{- define "weir.lib.image" -}}
{{- $tag := .image.tag | default (include "weir.lib.version" .) -}}
{{- .image.repository -}}:{{- $tag -}}
{{- with .image.digest -}}@{{- . -}}{{- end -}}
{{- end -}}

{{- /* The weir that this library is of: appVersion of its own Chart.yaml, which a template of another chart cannot read. */ -}}
{{- define "weir.lib.version" -}}
0.1.0
{{- end -}}
