CREATE FUNCTION rebate.attach(
	source				regclass,
	member				text,
	amount				text,
	currency			text DEFAULT NULL,
	"key"				text[] DEFAULT NULL,
	quantity			text DEFAULT NULL,
	order_time			text DEFAULT NULL,
	status				text DEFAULT NULL,
	phases				jsonb DEFAULT NULL,
	confirmed_at		text DEFAULT NULL,
	refunded			text DEFAULT NULL,
	refunded_quantity	text DEFAULT NULL,
	attributes			jsonb DEFAULT NULL,
	since				timestamptz DEFAULT NULL,
	max_backdate		interval DEFAULT '30 days',
	max_future			interval DEFAULT '1 day',
	on_delete			text DEFAULT 'void',
	on_truncate			text DEFAULT 'refuse',
	on_error			text DEFAULT 'set_aside',
	"replace"			boolean DEFAULT false,
	row_triggers		boolean DEFAULT false,
	original			text[] DEFAULT NULL,
	"replaces"			text[] DEFAULT NULL
) RETURNS regclass
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_attach';
COMMENT ON FUNCTION rebate.attach IS 'attaches an order table: its orders earn rebates from now on';
REVOKE ALL ON FUNCTION rebate.attach FROM PUBLIC;

CREATE FUNCTION rebate.detach(source regclass) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_detach';
COMMENT ON FUNCTION rebate.detach IS 'detaches an order table; the ledger stays';
REVOKE ALL ON FUNCTION rebate.detach FROM PUBLIC;

CREATE FUNCTION rebate.set_programme(time_zone text) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_set_programme';
COMMENT ON FUNCTION rebate.set_programme IS 'sets the time zone in which times without zone, dates and holds are read';
REVOKE ALL ON FUNCTION rebate.set_programme FROM PUBLIC;

CREATE FUNCTION rebate.add_currency(code text, scale integer) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'rebate_add_currency';
COMMENT ON FUNCTION rebate.add_currency IS 'adds a unit of account, or changes the number of decimals of an unused one';
REVOKE ALL ON FUNCTION rebate.add_currency FROM PUBLIC;
