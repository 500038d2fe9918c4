"""What boto3 raises, as our errors: the S3 error code and what to do, and nothing that could quote a credential."""

from boto3.exceptions import Boto3Error
from boto3.exceptions import RetriesExceededError as TransferRetriesExceeded
from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from optirag_core.errors import StorageError, StorageFull

ABSENT = ("NoSuchKey", "404")  # the answer to HEAD has no body, hence no code but its status
TAKEN = ("PreconditionFailed", "412")
CONFLICT = ("ConditionalRequestConflict", "409")
FULL = ("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507")
DOWN = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504")

CREDENTIALS = "check the credentials of the standard chain (environment, profile or role)"
NETWORK = "check AWS_ENDPOINT_URL, the network and that the server runs; then run the same command again"
ADVICE = {
    **dict.fromkeys(("AccessDenied", "403"), f"{CREDENTIALS} and what they may do in this bucket"),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "401"), CREDENTIALS),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired"), f"they are out of date: {CREDENTIALS}"),
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    **dict.fromkeys(
        ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "IllegalLocationConstraintException"),
        "the bucket is in another region: set AWS_REGION to it",
    ),
    "NoSuchBucket": "there is no such bucket: create it, or correct the URI",
    **dict.fromkeys(ABSENT, "there is no such file"),
    "NotImplemented": "this server lacks conditional writes (If-None-Match), which runs need: use another one",
    **dict.fromkeys(DOWN, "the server is overloaded or down: run the same command again later"),
}
"""Code of S3's answer -> what to do. Others are shown with the server's own words."""

FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (botocore_errors.NoCredentialsError, f"there are none: {CREDENTIALS}"),
    (botocore_errors.PartialCredentialsError, f"they are incomplete: {CREDENTIALS}"),
    (botocore_errors.CredentialRetrievalError, CREDENTIALS),
    (botocore_errors.TokenRetrievalError, CREDENTIALS),
    (botocore_errors.ProfileNotFound, f"AWS_PROFILE names no profile: {CREDENTIALS}"),
    (botocore_errors.ConfigParseError, "AWS_CONFIG_FILE or ~/.aws/config cannot be read: correct it"),
    (botocore_errors.InvalidRegionError, "AWS_REGION is no name of a region: correct it"),
    (botocore_errors.ParamValidationError, "this is no valid name of a bucket or file: correct the URI"),
    (botocore_errors.SSLError, "the server's certificate is refused: check AWS_CA_BUNDLE and AWS_ENDPOINT_URL"),
    (botocore_errors.ConnectionError, NETWORK),
    (botocore_errors.HTTPClientError, NETWORK),
    (S3DownloadFailedError, "the file changes all the time: run the same command again"),
    (S3ValidationError, "the file changes all the time: run the same command again"),
    (TransferRetriesExceeded, f"the answer broke off every time: {NETWORK}"),
    (ResponseParserError, f"the answer broke off every time, or this is no S3 server: {NETWORK}"),
)
"""What boto3 raises without an answer -> what to do. Its own texts are not shown: they may quote signed headers."""

TRANSFER = (S3DownloadFailedError, S3ValidationError)
"""The file was replaced while its parts were on the way."""

BROKEN_OFF = (
    botocore_errors.IncompleteReadError,
    botocore_errors.ResponseStreamingError,
    botocore_errors.ReadTimeoutError,
    botocore_errors.ConnectionError,
)
"""Errors while the body arrives; boto3 retries none of them."""


class BrokenOff(Exception):
    """A body did not arrive in whole."""


class Refused(StorageError):
    """S3 answered with an error."""

    code: str = ""


BOTO_ERRORS = (BrokenOff, ClientError, BotoCoreError, Boto3Error, ResponseParserError, *TRANSFER)


def cause_of(error: Exception) -> Exception:
    """The answer itself where an upload hides it behind an error of its own."""
    inner = error.__context__
    return inner if isinstance(error, Boto3Error) and isinstance(inner, ClientError) else error


def spent_retries(error: Exception) -> bool:
    """Whether boto3 tried several times before it, which costs its client's retry quota."""
    if isinstance(error, ClientError):
        return _status(error) >= 500 or _code(error) in DOWN
    return isinstance(error, (botocore_errors.ConnectionError, botocore_errors.HTTPClientError))


def is_worth_another(error: Exception) -> bool:
    """Whether boto3 gave up before `storage.max_attempts`."""
    if isinstance(error, ClientError):
        return bool(error.response.get("ResponseMetadata", {}).get("RetryQuotaReached"))
    return isinstance(error, (BrokenOff, ResponseParserError, *TRANSFER))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def refusal(error: Exception, what: str) -> StorageError:
    """The error as ours. Nothing that could quote a credential gets into its text."""
    if not isinstance(error, ClientError):
        advice = next((text for kind, text in FAILURES if isinstance(error, kind)), NETWORK)
        return StorageError(f"{what}: {type(error).__name__}: {advice}")
    code, status = _code(error) or str(_status(error)), _status(error)
    if code in FULL or status == 507:
        return StorageFull(f"{what}: {code}: no space left: free some and run the same command again")
    words = "" if status in (401, 403) else " ".join(str(error.response["Error"].get("Message", "")).split())[:200]
    refused = Refused(f"{what}: {code}: {ADVICE.get(code) or words or CREDENTIALS}")
    refused.code = code
    return refused
