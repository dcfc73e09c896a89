#!/usr/bin/env bash
# Every operation of an SQS-compatible server, and some errors, seen by the aws command line.
#   aws_queue.sh ENDPOINT [AWS]
# Exits 1 with a readable line at the first deviation.
set -euo pipefail

endpoint=$1
aws=${2:-aws}
export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1 AWS_PAGER= AWS_MAX_ATTEMPTS=1
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

sqs() { "$aws" --endpoint-url "$endpoint" --output text sqs "$@"; }

same() { # what, actual, wanted
    [[ $2 == "$3" ]] || { echo "deviation from Amazon SQS in $1: '$2' instead of '$3'" >&2; exit 1; }
}

refused() { # code, arguments: the call must fail with this error code
    local code=$1 said
    shift
    if said=$(sqs "$@" 2>&1); then same "$1" "success" "$code"; fi
    [[ $said == *"($code)"* ]] || same "$1" "$said" "$code"
}

depth() {
    sqs get-queue-attributes --queue-url "$url" --attribute-names All --query \
        'Attributes.[ApproximateNumberOfMessages,ApproximateNumberOfMessagesNotVisible,ApproximateNumberOfMessagesDelayed]'
}

name=cli-$$-$RANDOM
url=$(sqs create-queue --queue-name "$name" --attributes VisibilityTimeout=45 --query QueueUrl)
same "the queue's URL" "$url" "$endpoint/000000000000/$name"
same "get-queue-url" "$(sqs get-queue-url --queue-name "$name" --query QueueUrl)" "$url"
same "list-queues" "$(sqs list-queues --queue-name-prefix "$name" --query 'QueueUrls[0]')" "$url"
refused QueueAlreadyExists create-queue --queue-name "$name" --attributes VisibilityTimeout=46
refused AWS.SimpleQueueService.NonExistentQueue get-queue-url --queue-name nobody

sqs set-queue-attributes --queue-url "$url" --attributes DelaySeconds=0,ReceiveMessageWaitTimeSeconds=1
same "an attribute" "$(sqs get-queue-attributes --queue-url "$url" --attribute-names ReceiveMessageWaitTimeSeconds \
    --query 'Attributes.ReceiveMessageWaitTimeSeconds')" 1

body='{"user_id": "é", "n": 1}'
id=$(sqs send-message --queue-url "$url" --message-body "$body" --query MessageId \
    --message-attributes 'kind={DataType=String,StringValue=login}')
# The handle comes last: it is the only value without a tab that would be left over.
IFS=$'\t' read -r got_id count got_body kind handle < <(sqs receive-message --queue-url "$url" \
    --message-system-attribute-names ApproximateReceiveCount --message-attribute-names All --query \
    'Messages[0].[MessageId,Attributes.ApproximateReceiveCount,Body,MessageAttributes.kind.StringValue,ReceiptHandle]')
same "the message" "$got_id $count $got_body $kind" "$id 1 $body login"
same "depth while in flight" "$(depth)" $'0\t1\t0'
sqs change-message-visibility --queue-url "$url" --receipt-handle "$handle" --visibility-timeout 0
same "depth when given back" "$(depth)" $'1\t0\t0'
sqs delete-message --queue-url "$url" --receipt-handle "$handle"
same "depth when deleted" "$(depth)" $'0\t0\t0'
refused ReceiptHandleIsInvalid delete-message --queue-url "$url" --receipt-handle garbage
refused InvalidParameterValue send-message --queue-url "$url" --message-body a --delay-seconds 901

same "send-message-batch" "$(sqs send-message-batch --queue-url "$url" --query 'Successful[].Id' \
    --entries Id=a,MessageBody=1 Id=b,MessageBody=2)" $'a\tb'
IFS=$'\t' read -r first second < <(sqs receive-message --queue-url "$url" --max-number-of-messages 10 \
    --query '[Messages[].ReceiptHandle]')
same "change-message-visibility-batch" "$(sqs change-message-visibility-batch --queue-url "$url" \
    --query '[Successful[].Id, Failed[].Code]' --entries "Id=a,ReceiptHandle=$first,VisibilityTimeout=60" \
    Id=x,ReceiptHandle=garbage,VisibilityTimeout=60)" $'a\nReceiptHandleIsInvalid'
same "delete-message-batch" "$(sqs delete-message-batch --queue-url "$url" --query '[Successful[].Id, Failed[].Code]' \
    --entries "Id=a,ReceiptHandle=$first" "Id=b,ReceiptHandle=$second" Id=x,ReceiptHandle=garbage)" \
    $'a\tb\nReceiptHandleIsInvalid'
refused AWS.SimpleQueueService.BatchEntryIdsNotDistinct delete-message-batch --queue-url "$url" \
    --entries Id=a,ReceiptHandle=1 Id=a,ReceiptHandle=2

sqs send-message --queue-url "$url" --message-body a --delay-seconds 900 >/dev/null
same "depth with a delay" "$(depth)" $'0\t0\t1'
sqs purge-queue --queue-url "$url"
same "depth after a purge" "$(depth)" $'0\t0\t0'
refused AWS.SimpleQueueService.UnsupportedOperation list-queue-tags --queue-url "$url"
sqs delete-queue --queue-url "$url"
refused AWS.SimpleQueueService.NonExistentQueue delete-queue --queue-url "$url"
echo "all operations"
