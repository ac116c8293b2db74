"""What a call is refused with."""

import json

from kubernetes.client.rest import ApiException


def refusal(call, *args, **kwargs) -> dict:
    """The Status that the call fails with; the exception's own status, reason and headers have to agree with it."""
    try:
        answer = call(*args, **kwargs)
    except ApiException as error:
        status = json.loads(error.body)
        assert status["kind"] == "Status" and status["apiVersion"] == "v1" and status["status"] == "Failure", status
        assert status["code"] == error.status, (status, error.status)
        assert error.headers["Content-Type"] == "application/json", error.headers
        assert error.headers["Audit-Id"], error.headers
        return status
    raise AssertionError(f"{call.__name__} was not refused: {answer}")
