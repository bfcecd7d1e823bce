"""What the machine serves with: the release, the key and certificate, the mirror of the weights."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from llavachat_cdk.release import Release
from llavachat_cdk.waivers import waive


class Service(Construct):
    """The release as an asset, two secrets, and a bucket that only this deployment uses.

    Attributes:
        release: the release, zipped; its name changes with its content.
        api_key: made by Secrets Manager, so that no machine needs the right to write it.
        certificate: empty until the first machine writes the certificate that it made; every
            later machine takes it from here, so that clients need trust only one.
        weights: published weights, fetched from their hub once.
    """

    def __init__(self, scope: Construct, id: str, *, release: Release) -> None:
        super().__init__(scope, id)
        # An asset is copied while it is made; under `cdk --no-staging` it is read where it lies.
        unstaged = bool(self.node.try_get_context("aws:cdk:disable-asset-staging"))
        with release.staged(keep=unstaged) as folder:
            self.release = s3_assets.Asset(self, "Release", path=str(folder))
        self.api_key = secretsmanager.Secret(
            self,
            "ApiKey",
            description="The key that clients of llavachat send",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, password_length=43
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.certificate = secretsmanager.Secret(
            self,
            "Certificate",
            description="llavachat's TLS certificate and its private key, as JSON",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template="{}",  # noqa: S106 - empty: the machine fills it
                generate_string_key="unused",
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.weights = s3.Bucket(
            self,
            "Weights",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            lifecycle_rules=[
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1))
            ],
            auto_delete_objects=True,
            removal_policy=RemovalPolicy.DESTROY,
        )
        waive(
            self.api_key,
            {"SMG4": "Clients hold this key; a rotation that they do not know of locks them out."},
        )
        waive(
            self.certificate,
            {"SMG4": "Clients trust this very certificate; the machine renews it in time."},
        )
        waive(
            self.weights,
            {"S1": "Copies of published weights: who read them is of no interest."},
        )

    def list_statements(self) -> list[iam.PolicyStatement]:
        """What the machine may do with these, and nothing besides."""
        # asset.grant_read would open the whole bootstrap bucket.
        release = self.release.bucket.arn_for_objects(self.release.s3_object_key)
        return [
            iam.PolicyStatement(sid="FetchRelease", actions=["s3:GetObject"], resources=[release]),
            iam.PolicyStatement(
                sid="ListWeights", actions=["s3:ListBucket"], resources=[self.weights.bucket_arn]
            ),
            iam.PolicyStatement(
                sid="MirrorWeights",
                actions=["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                resources=[self.weights.arn_for_objects("*")],
            ),
            iam.PolicyStatement(
                sid="ReadKey",
                actions=["secretsmanager:GetSecretValue"],
                resources=[self.api_key.secret_arn],
            ),
            iam.PolicyStatement(
                sid="KeepCertificate",
                actions=["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
                resources=[self.certificate.secret_arn],
            ),
        ]
