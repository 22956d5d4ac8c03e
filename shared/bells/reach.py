"""Whether Redis answers: for health pages and the doctor."""


def client_url(redis_url: str) -> str:
    """Celery's form of a socket's address (`redis+socket://PATH?virtual_host=N`) as redis-py wants it."""
    if redis_url.startswith("redis+socket://"):
        return redis_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)
    return redis_url


def state(redis_url: str, timeout_seconds: float = 1.0) -> str:
    """`ok` or `down`."""
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        client = Redis.from_url(client_url(redis_url), socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, retry=None)
    except ValueError:  # no address of a Redis
        return "down"
    try:
        client.ping()
    except (RedisError, OSError):
        return "down"
    finally:
        client.close()
    return "ok"
