-- What our server needs of `state.db` beyond the tables that Kamailio's package brings.

-- Kamailio writes a location as a new row also when it refreshes one (usrloc's db_update_as_insert): a row that
-- could not be written the first time, because the database was locked or full, comes with the next refresh.
CREATE TRIGGER location_refreshed BEFORE INSERT ON location
BEGIN
    DELETE FROM location WHERE ruid = NEW.ruid;
END;

-- It asks for locations by ruid only. Each of these indexes would be written with every refresh.
DROP INDEX location_account_contact_idx;
DROP INDEX location_expires_idx;
DROP INDEX location_tcpcon_idx;
DROP INDEX location_connection_idx;
