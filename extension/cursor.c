/*
 * cursor.c
 *	  The texts that say how far a client has read.
 *
 * They are nobody's business but ours.  A client keeps them in a database or a
 * file, so what comes back may be cut off or altered: the whole text is checked
 * before any of it is used.
 */
#include "rebate.h"

#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/builtins.h"

#include "cursor.h"

/* The first field of each text */
#define FEED_FORMAT		"f1"
#define MEMBER_FORMAT	"m1"

/* More running transactions than a server can have */
#define MAX_XIP			1000000

static int
compare_xids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* A transaction id of now with its epoch; "next" is the id given out next. */
static uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint64		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return epoch << 32 | xid;
}

/*
 * Snapshots leave out the transaction that took them, which is as little ended
 * as the others.
 */
XidSnapshot
xid_snapshot_of(Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	XidSnapshot s;
	int			n = 0;

	s.xmin = widen(snapshot->xmin, next);
	s.xmax = widen(snapshot->xmax, next);
	s.xip = palloc(sizeof(uint64) * (snapshot->xcnt + 1));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		s.xip[n++] = widen(snapshot->xip[i], next);
	if (FullTransactionIdIsValid(own) && U64FromFullTransactionId(own) < s.xmax)
		s.xip[n++] = U64FromFullTransactionId(own);
	qsort(s.xip, n, sizeof(uint64), compare_xids);

	/* a transaction that is being prepared may be there twice */
	s.nxip = 0;
	for (int i = 0; i < n; i++)
	{
		if (s.nxip == 0 || s.xip[s.nxip - 1] != s.xip[i])
			s.xip[s.nxip++] = s.xip[i];
	}
	if (s.nxip > 0 && s.xip[0] < s.xmin)
		s.xmin = s.xip[0];
	return s;
}

bool
xid_snapshot_equal(const XidSnapshot *a, const XidSnapshot *b)
{
	return a->xmin == b->xmin && a->xmax == b->xmax && a->nxip == b->nxip &&
		memcmp(a->xip, b->xip, sizeof(uint64) * a->nxip) == 0;
}

/* Reading a text from left to right */
typedef struct Reader
{
	const char *p;
} Reader;

static void
refuse_text(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_RB_CURSOR_REFUSED),
			 errmsg("the cursor is malformed"),
			 errdetail("Its text is not one that was returned here."),
			 errhint("Give a cursor back exactly as it was returned, to the function that returned it.")));
}

static void
read_char(Reader *r, char c)
{
	if (*r->p != c)
		refuse_text();
	r->p++;
}

static void
read_literal(Reader *r, const char *literal)
{
	while (*literal != '\0')
		read_char(r, *literal++);
}

static uint64
read_uint(Reader *r, uint64 max)
{
	uint64		value = 0;
	const char *start = r->p;

	for (; *r->p >= '0' && *r->p <= '9'; r->p++)
	{
		uint64		digit = *r->p - '0';

		if (value > (max - digit) / 10)
			refuse_text();
		value = value * 10 + digit;
	}
	if (r->p == start)
		refuse_text();
	return value;
}

static void
write_snapshot(StringInfo buf, const XidSnapshot *s)
{
	appendStringInfo(buf, UINT64_FORMAT ":" UINT64_FORMAT ":", s->xmin, s->xmax);
	for (int i = 0; i < s->nxip; i++)
		appendStringInfo(buf, "%s" UINT64_FORMAT, i > 0 ? "," : "", s->xip[i] - s->xmin);
}

static void
read_snapshot(Reader *r, XidSnapshot *s)
{
	int			allocated = 16;

	s->xmin = read_uint(r, PG_UINT64_MAX);
	read_char(r, ':');
	s->xmax = read_uint(r, PG_UINT64_MAX);
	read_char(r, ':');
	if (s->xmax < s->xmin)
		refuse_text();
	s->nxip = 0;
	s->xip = palloc(sizeof(uint64) * allocated);
	while (*r->p >= '0' && *r->p <= '9')
	{
		uint64		offset = read_uint(r, PG_UINT64_MAX);

		if (offset >= s->xmax - s->xmin || s->nxip == MAX_XIP ||
			(s->nxip > 0 && s->xip[s->nxip - 1] >= s->xmin + offset))
			refuse_text();
		if (s->nxip == allocated)
			s->xip = repalloc(s->xip, sizeof(uint64) * (allocated *= 2));
		s->xip[s->nxip++] = s->xmin + offset;
		if (*r->p != ',')
			break;
		r->p++;
	}
}

void
feed_cursor_head(StringInfo head, const FeedCursor *c)
{
	resetStringInfo(head);
	appendStringInfo(head, FEED_FORMAT "." UINT64_FORMAT ".%d.%u." UINT64_FORMAT ".",
					 c->point.system_identifier, c->point.epoch, c->point.tli,
					 (uint64) c->point.lsn);
	write_snapshot(head, &c->seen);
	appendStringInfoChar(head, '.');
	if (c->in_batch)
		write_snapshot(head, &c->current);
	appendStringInfoChar(head, '.');
}

/* A number and the character after it */
static void
put_uint(StringInfo buf, uint64 value, char end)
{
	enlargeStringInfo(buf, MAXINT8LEN + 2);
	buf->len += pg_ulltoa_n(value, buf->data + buf->len);
	buf->data[buf->len++] = end;
	buf->data[buf->len] = '\0';
}

/* The last field is a hash of what is before it.  Once a row: no formats. */
void
feed_cursor_write(StringInfo buf, const StringInfoData *head, EventKey last, int64 last_check)
{
	int			start = buf->len;

	appendBinaryStringInfo(buf, head->data, head->len);
	put_uint(buf, last.account_id, ':');
	put_uint(buf, last.seq, ':');
	put_uint(buf, (uint64) last_check, '.');
	put_uint(buf, hash_bytes((unsigned char *) buf->data + start, buf->len - start), '\0');
	buf->len--;
}

void
feed_cursor_parse(const char *text, FeedCursor *c)
{
	Reader		r = {text};
	uint32		hash;

	memset(c, 0, sizeof(*c));
	read_literal(&r, FEED_FORMAT ".");
	c->point.system_identifier = read_uint(&r, PG_UINT64_MAX);
	read_char(&r, '.');
	c->point.epoch = read_uint(&r, PG_INT32_MAX);
	read_char(&r, '.');
	c->point.tli = read_uint(&r, PG_UINT32_MAX);
	read_char(&r, '.');
	c->point.lsn = read_uint(&r, PG_UINT64_MAX);
	read_char(&r, '.');
	read_snapshot(&r, &c->seen);
	read_char(&r, '.');
	c->in_batch = *r.p != '.';
	if (c->in_batch)
		read_snapshot(&r, &c->current);
	read_char(&r, '.');
	c->last.account_id = read_uint(&r, PG_INT64_MAX);
	read_char(&r, ':');
	c->last.seq = read_uint(&r, PG_INT64_MAX);
	read_char(&r, ':');
	c->last_check = read_uint(&r, PG_UINT64_MAX);
	read_char(&r, '.');
	hash = hash_bytes((const unsigned char *) text, r.p - text);
	if (read_uint(&r, PG_UINT32_MAX) != hash || *r.p != '\0')
		refuse_text();
}

void
member_cursor_write(StringInfo buf, const MemberPlace *places, int n)
{
	appendStringInfoString(buf, MEMBER_FORMAT);
	for (int i = 0; i < n; i++)
	{
		if (places[i].seq > 0)
			appendStringInfo(buf, ".%s:" INT64_FORMAT ":" UINT64_FORMAT, places[i].currency,
							 places[i].seq, (uint64) places[i].check);
	}
}

MemberPlace *
member_cursor_parse(const char *text, int *n)
{
	Reader		r = {text};
	int			allocated = 4;
	MemberPlace *places = palloc(sizeof(MemberPlace) * allocated);

	*n = 0;
	read_literal(&r, MEMBER_FORMAT);
	while (*r.p != '\0')
	{
		size_t		len;

		read_char(&r, '.');
		/* codes are capitals, digits and underscores */
		len = strcspn(r.p, ":.");
		if (len == 0)
			refuse_text();
		if (*n == allocated)
			places = repalloc(places, sizeof(MemberPlace) * (allocated *= 2));
		places[*n].currency = pnstrdup(r.p, len);
		if (*n > 0 && strcmp(places[*n - 1].currency, places[*n].currency) >= 0)
			refuse_text();
		r.p += len;
		read_char(&r, ':');
		places[*n].seq = read_uint(&r, PG_INT64_MAX);
		read_char(&r, ':');
		places[*n].check = read_uint(&r, PG_UINT64_MAX);
		if (places[(*n)++].seq == 0)
			refuse_text();
	}
	return places;
}
