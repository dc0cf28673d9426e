{{- define "scmoe.name" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}{{ else if contains $chart .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name $chart | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "scmoe.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "scmoe.name" .) }}
{{- end }}

{{- /* Labels that stay the same in every version, because a Deployment's selector is immutable. */}}
{{- define "scmoe.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "scmoe.labels" -}}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{ include "scmoe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Labels and annotations of an object, to be indented below its metadata. */}}
{{- define "scmoe.marks" -}}
labels:
  {{- include "scmoe.labels" . | trim | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
The reference of an image. `key` is its value below image, `name` its name in image.registry, and
`root` the context of the template. Empty for gpuWorker if it is nowhere.
*/}}
{{- define "scmoe.image" -}}
{{- $image := index .root.Values.image .key }}
{{- $registry := .root.Values.image.registry }}
{{- $repository := $image.repository }}
{{- if and (not $repository) $registry }}
{{- $repository = printf "%s/%s" $registry .name }}
{{- end }}
{{- if $repository }}
{{- if $image.digest }}{{ printf "%s@%s" $repository $image.digest }}{{ else }}{{ printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) }}{{ end }}
{{- else if ne .key "gpuWorker" }}
{{- fail (printf "image.registry and image.%s.repository are empty, and the images of ScMoE are in no public registry: in a checkout run `npm run build && npx node tools/images/main.ts --push REGISTRY`, which builds the images, pushes them to your registry and prints the helm command that installs them" .key) }}
{{- end }}
{{- end }}

{{- /* The operator's pods and the other peers that may read the reports of workers, as JSON; all if the
       list is empty. */}}
{{- define "scmoe.reportReaders" -}}
{{- $namespace := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) -}}
{{- $pods := dict "matchLabels" (include "scmoe.selector" . | fromYaml) -}}
{{- $operator := dict "namespaceSelector" $namespace "podSelector" $pods -}}
{{- $readers := .Values.jobs.networkPolicy.reportReaders -}}
{{- /* Where the Prometheus of the PodMonitor runs is not known. */ -}}
{{ if and .Values.podMonitor.enabled (not $readers) }}[]{{ else }}{{ concat (list $operator) $readers | toJson }}{{ end }}
{{- end }}

{{- /* Security contexts that the Pod Security level "restricted" admits. */}}
{{- define "scmoe.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "scmoe.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}
