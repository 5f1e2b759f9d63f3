"""The resources for clusters have what their kinds require, and no field that these do not know.

The schemas are of Kubernetes' API reference and of the custom resource definitions of Argo
Rollouts, Flagger and KServe: required fields, types, and the fields that are used here. An object
is closed, so that a misspelt field is an error, as ``kubectl apply --validate=strict`` has it.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

Schema = dict[str, Any]

STRING: Schema = {"type": "string", "minLength": 1}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
STRINGS: Schema = {"type": "object", "additionalProperties": STRING}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(h|m|s))+$"}


def closed(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


def some(items: Schema) -> Schema:
    """A list that is not empty."""
    return {"type": "array", "items": items, "minItems": 1}


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values)}


def resource(version: str, kind: str, spec: Schema) -> Schema:
    """A resource of one version and kind."""
    metadata = closed({"name": STRING}, {"namespace": STRING, "labels": STRINGS})
    return closed(
        {"apiVersion": one_of(version), "kind": one_of(kind), "metadata": metadata, "spec": spec}
    )


PORT: Schema = {"type": ["string", "integer"]}
PROBE = closed(
    {},
    {"httpGet": closed({"port": PORT}, {"path": STRING}), "tcpSocket": closed({"port": PORT})},
)
SECURITY: dict[str, Schema] = {"runAsNonRoot": BOOLEAN, "runAsUser": INTEGER}
CONTAINER = closed(
    {"name": STRING, "image": STRING},
    {
        "command": some(STRING),
        "args": some(STRING),
        "ports": some(closed({"containerPort": INTEGER}, {"name": STRING})),
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
        "securityContext": closed(
            {},
            {
                **SECURITY,
                "allowPrivilegeEscalation": BOOLEAN,
                "readOnlyRootFilesystem": BOOLEAN,
                "capabilities": closed({}, {"drop": some(STRING)}),
            },
        ),
        "volumeMounts": some(closed({"name": STRING, "mountPath": STRING}, {"readOnly": BOOLEAN})),
    },
)
VOLUME = closed(
    {"name": STRING},
    {
        "persistentVolumeClaim": closed({"claimName": STRING}, {"readOnly": BOOLEAN}),
        "configMap": closed({"name": STRING}),
        "secret": closed({"secretName": STRING}, {"defaultMode": INTEGER}),
        "emptyDir": closed({}),
    },
)
POD_FIELDS: dict[str, Schema] = {
    "initContainers": some(CONTAINER),
    "volumes": some(VOLUME),
    "securityContext": closed({}, {**SECURITY, "fsGroup": INTEGER}),
    "automountServiceAccountToken": BOOLEAN,
    "restartPolicy": one_of("Always", "OnFailure", "Never"),
}
POD = closed({"containers": some(CONTAINER)}, POD_FIELDS)
LABELS = closed({"matchLabels": STRINGS})
TEMPLATE = closed({"metadata": closed({"labels": STRINGS}), "spec": POD})

JOB = closed(
    {
        # The default, Always, is not allowed here.
        "template": closed(
            {"spec": {**POD, "required": ["containers", "restartPolicy"]}}, {"metadata": STRINGS}
        )
    },
    {"backoffLimit": INTEGER, "ttlSecondsAfterFinished": INTEGER},
)
DEPLOYMENT = closed({"selector": LABELS, "template": TEMPLATE}, {"replicas": INTEGER})
SERVICE = closed(
    {"ports": some(closed({"port": INTEGER}, {"name": STRING, "targetPort": PORT}))},
    {"selector": STRINGS},
)
NETWORK_POLICY = closed(
    {"podSelector": LABELS},
    {
        "policyTypes": some(one_of("Ingress", "Egress")),
        "ingress": some(
            closed(
                {},
                {
                    "from": some(closed({}, {"namespaceSelector": LABELS})),
                    "ports": some(closed({}, {"port": PORT, "protocol": one_of("TCP", "UDP")})),
                },
            )
        ),
    },
)

SECRET_KEY = closed({"secretKeyRef": closed({"name": STRING, "key": STRING})})
ANALYSIS_TEMPLATE = closed(
    {
        "metrics": some(
            closed(
                {
                    "name": STRING,
                    "provider": closed(
                        {
                            "web": closed(
                                {"url": STRING},
                                {
                                    "headers": some(closed({"key": STRING, "value": STRING})),
                                    "jsonPath": STRING,
                                    "timeoutSeconds": INTEGER,
                                },
                            )
                        }
                    ),
                },
                {
                    "count": INTEGER,
                    "successCondition": STRING,
                    "failureCondition": STRING,
                    "failureLimit": INTEGER,
                    "inconclusiveLimit": INTEGER,
                    "consecutiveErrorLimit": INTEGER,
                },
            )
        )
    },
    {"args": some(closed({"name": STRING}, {"value": STRING, "valueFrom": SECRET_KEY}))},
)
ROLLOUT_STEP = closed(
    {},
    {
        "setWeight": {"type": "integer", "minimum": 0, "maximum": 100},
        "pause": closed({}, {"duration": DURATION}),
        "analysis": closed(
            {"templates": some(closed({"templateName": STRING}))},
            {"args": some(closed({"name": STRING, "value": STRING}))},
        ),
    },
)
ROLLOUT = closed(
    {
        "selector": LABELS,
        "template": TEMPLATE,
        "strategy": closed({"canary": closed({"steps": some(ROLLOUT_STEP)})}),
    },
    {"replicas": INTEGER},
)
CANARY = closed(
    {
        "targetRef": closed({"apiVersion": STRING, "kind": one_of("Deployment"), "name": STRING}),
        "analysis": closed(
            {"interval": DURATION, "threshold": INTEGER},
            {
                "maxWeight": INTEGER,
                "stepWeight": INTEGER,
                "webhooks": some(
                    closed(
                        {"name": STRING, "url": STRING},
                        {
                            "type": one_of(
                                *("confirm-rollout", "pre-rollout", "rollout", "post-rollout"),
                                *("confirm-traffic-increase", "confirm-promotion", "rollback"),
                                "event",
                            ),
                            "timeout": DURATION,
                            "metadata": STRINGS,
                        },
                    )
                ),
            },
        ),
    },
    {"service": closed({"port": INTEGER})},
)
INFERENCE_SERVICE = closed(
    {
        "predictor": closed(
            {
                "model": closed(
                    {"modelFormat": closed({"name": STRING}, {"version": STRING})},
                    {"protocolVersion": STRING, "runtime": STRING, "storageUri": STRING},
                )
            },
            POD_FIELDS,
        )
    }
)

SCHEMAS: dict[str, Schema] = {
    kind: resource(version, kind, spec)
    for kind, version, spec in (
        ("Job", "batch/v1", JOB),
        ("Deployment", "apps/v1", DEPLOYMENT),
        ("Service", "v1", SERVICE),
        ("NetworkPolicy", "networking.k8s.io/v1", NETWORK_POLICY),
        ("AnalysisTemplate", "argoproj.io/v1alpha1", ANALYSIS_TEMPLATE),
        ("Rollout", "argoproj.io/v1alpha1", ROLLOUT),
        ("Canary", "flagger.app/v1beta1", CANARY),
        ("InferenceService", "serving.kserve.io/v1beta1", INFERENCE_SERVICE),
    )
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_resource_has_what_its_kind_requires_and_nothing_unknown(
    resources: dict[str, dict[str, Any]], kind: str
) -> None:
    of_kind = [resource for resource in resources.values() if resource["kind"] == kind]

    assert of_kind
    for resource in of_kind:
        jsonschema.validate(resource, SCHEMAS[kind])


def test_there_is_no_resource_of_another_kind(resources: dict[str, dict[str, Any]]) -> None:
    assert {resource["kind"] for resource in resources.values()} == set(SCHEMAS)
