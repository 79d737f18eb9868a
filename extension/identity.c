/*
 * identity.c
 *	  rebate.act_as(): the member that a transaction acts for.
 *
 * It is no setting: anybody can SET one, and in a pooled session it stays behind
 * for the next client.  It is kept in memory of this process, belongs to the
 * subtransaction that said it, and ends with the transaction, however that ends.
 */
#include "rebate.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "api.h"
#include "identity.h"
#include "order.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(rebate_act_as);
PG_FUNCTION_INFO_V1(rebate_act_as_request);
PG_FUNCTION_INFO_V1(rebate_current_member);

/* Where a gateway that speaks HTTP puts the verified claims of a request */
#define CLAIMS_SETTING	"request.jwt.claims"
#define CLAIM			"sub"

/* Whom a subtransaction acts for */
typedef struct Identity
{
	struct Identity *outer;		/* whom it acts for again once this is rolled back */
	SubTransactionId sub;
	bool		of_request;		/* told by the claims of a request */
	char	   *member;			/* NULL: nobody */
} Identity;

/* In TopTransactionContext; NULL: nothing was said */
static Identity *current = NULL;

static void
drop_current(void)
{
	Identity   *outer = current->outer;

	if (current->member)
		pfree(current->member);
	pfree(current);
	current = outer;
}

void
identity_at_xact_end(void)
{
	/* the memory goes with the transaction */
	current = NULL;
}

/* What a subtransaction said takes the place of what its parent did. */
void
identity_at_subcommit(SubTransactionId my, SubTransactionId parent)
{
	if (current == NULL || current->sub != my)
		return;
	current->sub = parent;
	if (current->outer && current->outer->sub == parent)
	{
		Identity   *replaced = current->outer;

		current->outer = replaced->outer;
		if (replaced->member)
			pfree(replaced->member);
		pfree(replaced);
	}
}

void
identity_at_subabort(SubTransactionId my)
{
	while (current && current->sub == my)
		drop_current();
}

void
identity_refuse_parallel(void)
{
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the current member is not known during a parallel operation"),
				 errhint("A function that asks for him must be marked PARALLEL UNSAFE.")));
}

void
identity_check_member(const char *member)
{
	if (member[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the member must not be empty")));
	if (strlen(member) > MAX_KEY_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the member is longer than %d bytes", MAX_KEY_LENGTH)));
}

/*
 * From here on the subtransaction acts for "member" (NULL: for nobody).  All that
 * can fail comes before anything changes.
 */
static void
act_for(const char *member, bool of_request)
{
	Identity   *identity;
	char	   *copy;

	if (member)
		identity_check_member(member);

	copy = member ? MemoryContextStrdup(TopTransactionContext, member) : NULL;
	identity = MemoryContextAlloc(TopTransactionContext, sizeof(Identity));
	if (current && current->sub == GetCurrentSubTransactionId())
		drop_current();
	identity->outer = current;
	identity->sub = GetCurrentSubTransactionId();
	identity->of_request = of_request;
	identity->member = copy;
	current = identity;
}

char *
identity_member(Store *store)
{
	if (current == NULL)
		return login_member(store, GetUserId());
	return current->member ? pstrdup(current->member) : NULL;
}

/* rebate.act_as(member): NULL acts for nobody */
Datum
rebate_act_as(PG_FUNCTION_ARGS)
{
	identity_refuse_parallel();
	rights_check(store_get(false), RIGHT_GATEWAY, "rebate.act_as");
	act_for(api_text(fcinfo, 0), false);
	PG_RETURN_VOID();
}

/* Claim "sub" of the claims of this request; NULL if there is none */
static char *
claimed_member(void)
{
	const char *text = GetConfigOption(CLAIMS_SETTING, true, false);
	Jsonb	   *claims;
	JsonbValue *claim;

	if (text == NULL || text[0] == '\0')
		return NULL;
	claims = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	if (!JB_ROOT_IS_OBJECT(claims))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("setting \"%s\" must be a JSON object", CLAIMS_SETTING)));
	claim = getKeyJsonValueFromContainer(&claims->root, CLAIM, strlen(CLAIM), NULL);
	if (claim == NULL || claim->type == jbvNull)
		return NULL;
	if (claim->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("claim \"%s\" must be a string", CLAIM)));
	return pnstrdup(claim->val.string.val, claim->val.string.len);
}

/* Raise if the claims of this request have already told of another member. */
static void
check_one_request(const char *member)
{
	for (Identity *identity = current; identity; identity = identity->outer)
	{
		if (!identity->of_request)
			continue;
		if (member ? identity->member && strcmp(member, identity->member) == 0 :
			identity->member == NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for rebate.act_as_request"),
				 errdetail("This transaction acts for another member already.")));
	}
}

/*
 * rebate.act_as_request(): act for the member that the claims of the request
 * name, or for nobody.
 *
 * The claims are a setting, which anybody can set in a session of his own.  So it
 * is the session's user who must be a gateway, whatever role it has taken for the
 * request; and once said it stays, so that nothing that the request calls can
 * take another's place.
 */
Datum
rebate_act_as_request(PG_FUNCTION_ARGS)
{
	Store	   *store;
	char	   *member;

	identity_refuse_parallel();
	store = store_get(false);
	rights_check(store, RIGHT_GATEWAY | RIGHT_MEMBER, "rebate.act_as_request");
	if (!rights_of(store, GetSessionUserId(), RIGHT_GATEWAY))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for rebate.act_as_request"),
				 errdetail("The claims of a request count only in the session of a gateway."),
				 errhint("Let the role that connects have right \"gateway\".")));
	member = claimed_member();
	check_one_request(member);
	act_for(member, true);
	PG_RETURN_VOID();
}

/* rebate.current_member(): whom the caller sees the rows of; NULL: nobody */
Datum
rebate_current_member(PG_FUNCTION_ARGS)
{
	Store	   *store;
	char	   *member;

	identity_refuse_parallel();
	store = store_get(false);
	rights_check(store, RIGHT_GATEWAY | RIGHT_MEMBER, "rebate.current_member");
	member = identity_member(store);
	if (member == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(member));
}
